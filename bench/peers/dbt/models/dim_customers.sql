{{ config(unique_key='customer_key', indexes=[{'columns': ['customer_key'], 'unique': true}]) }}

with customers as (

    select * from {{ source('staging', 'stg_customers') }}
    {% if is_incremental() %}
        where greatest(loaded_at, deleted_at) > (select max(loaded_at) from {{ this }})
    {% endif %}

),

known as (

    select
        {{ surrogate_key('customer_id') }} as customer_key,
        customer_id,
        email,
        first_name,
        last_name,
        phone,
        country,
        city,
        marketing_opt_in,
        is_deleted,
        created_at,
        updated_at,
        loaded_at
    from customers

),

final as (

    select * from known
    union all
    select
        {{ unknown_key() }}, null, null, 'Unknown', 'Unknown', null, null, null, null, false, null, null, null

)

select * from final
