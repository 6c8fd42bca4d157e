{{
    config(
        unique_key='customer_id',
        null_keys='customer_id',
        changed_by=[{'model': 'stg_customers', 'key': 'customer_id'}],
    )
}}

with customers as (

    select * from {{ ref('stg_customers') }}

),

known as (

    select
        -- ids
        {{ tidemark.surrogate_key('customer_id') }} as customer_key,
        customer_id,

        -- text
        email,
        first_name,
        last_name,
        phone,
        country,
        city,

        -- booleans
        marketing_opt_in,
        is_deleted,

        -- timestamps
        created_at,
        updated_at,
        loaded_at

    from customers

),

final as (

    select * from known
    union all
    -- the unknown member, for facts without a customer
    select
        {{ tidemark.unknown_key() }}, null, null, 'Unknown', 'Unknown',
        null, null, null, null, false, null, null, null

)

select * from final
