{{ config(unique_key=['customer_id', 'version']) }}

with snapshots as (

    select * from {{ ref('customers_snapshot') }}

),

versions as (

    select * from snapshots
    {% if is_incremental() %}
        -- all versions of a customer who has a new one, as that ends the one before
        where customer_id in (select customer_id from snapshots where loaded_xid >= {{ horizon() }})
    {% endif %}

),

numbered as (

    select
        *,
        row_number() over newest_last as version,
        -- a correction that moves a stamp back begins no earlier than what it corrects
        max(dbt_valid_from) over newest_last as begins_at
    from versions
    window newest_last as (partition by customer_id order by recorded_at)

),

final as (

    select
        -- ids
        {{ surrogate_key('customer_id') }} as customer_key,
        customer_id,
        version::integer as version,

        -- text
        email,
        first_name,
        last_name,
        phone,
        country,
        city,
        address,

        -- booleans
        marketing_opt_in,
        is_deleted,
        lead(begins_at) over next_version is null as is_current,

        -- timestamps: the first version holds from the customer's beginning
        case when version = 1 then least(created_at, begins_at) else begins_at end as valid_from,
        lead(begins_at) over next_version as valid_to

    from numbered
    window next_version as (partition by customer_id order by version)

)

select * from final
