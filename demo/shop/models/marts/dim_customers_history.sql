{{
    config(
        unique_key=['customer_id', 'version'],
        build_by='customer_id',
        changed_by=[{'model': 'customers_snapshot', 'key': 'customer_id'}],
    )
}}

with versions as (

    select * from {{ ref('customers_snapshot') }}

),

numbered as (

    select
        *,
        row_number() over (partition by customer_id order by dbt_valid_from) as version,
        max(changed_at) over (
            partition by customer_id order by dbt_valid_from rows between unbounded preceding and 1 preceding
        ) as changed_before
    from versions

),

begun as (

    select
        *,
        -- a change without a later time from the shop (a restored row, a correction) counts from when it was found
        max(
            case when changed_at is null or changed_at <= changed_before then dbt_valid_from else changed_at end
        ) over (partition by customer_id order by version) as begins_at
    from numbered

),

final as (

    select
        -- ids
        {{ tidemark.surrogate_key('customer_id') }} as customer_key,
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

        -- timestamps: the first version holds for all time before it, as a sale can be older than its customer: of a
        -- transaction that began before the customer's, or of a guest who opened an account later
        case when version = 1 then timestamptz '1900-01-01 00:00:00+00' else begins_at end as valid_from,
        lead(begins_at) over next_version as valid_to

    from begun
    window next_version as (partition by customer_id order by version)

)

select * from final
