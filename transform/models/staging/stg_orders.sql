with source as (

    select * from {{ source('raw', 'orders') }}

),

renamed as (

    select
        -- ids
        order_id,
        customer_id,

        -- text
        lower(trim(status)) as order_status,

        -- numbers
        shipping_fee::numeric(12, 2) as shipping_fee,

        -- timestamps
        ordered_at,
        paid_at,
        shipped_at,
        delivered_at,
        cancelled_at,
        created_at,
        updated_at,
        _sdc_batched_at as loaded_at

    from source

)

select * from renamed
