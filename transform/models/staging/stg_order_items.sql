with source as (

    select * from {{ source('raw', 'order_items') }}

),

renamed as (

    select
        -- ids
        order_item_id,
        order_id,
        product_id,

        -- numbers
        quantity::integer as quantity,
        unit_price::numeric(12, 2) as unit_price,
        unit_cost::numeric(12, 2) as unit_cost,
        discount::numeric(12, 2) as discount,

        -- timestamps
        created_at,
        updated_at,
        _sdc_batched_at as loaded_at

    from source

)

select * from renamed
