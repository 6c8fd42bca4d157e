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
        {{ utc('ordered_at') }} as ordered_at,
        {{ utc('paid_at') }} as paid_at,
        {{ utc('shipped_at') }} as shipped_at,
        {{ utc('delivered_at') }} as delivered_at,
        {{ utc('cancelled_at') }} as cancelled_at,
        {{ utc('created_at') }} as created_at,
        {{ utc('updated_at') }} as updated_at,
        {{ utc('_sdc_batched_at') }} as loaded_at

    from source

)

select * from renamed
