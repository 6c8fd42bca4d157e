with order_items as (

    select * from {{ ref('stg_order_items') }}

),

products as (

    select * from {{ ref('stg_products') }}

),

enriched as (

    select
        -- ids
        order_items.order_item_id,
        order_items.order_id,
        order_items.product_id,

        -- text
        products.product_name,
        products.category,

        -- numbers: the price and cost are those of the sale, not today's
        order_items.quantity,
        order_items.unit_price,
        order_items.unit_cost,
        order_items.quantity * order_items.unit_price as gross_revenue,
        order_items.discount,
        order_items.quantity * order_items.unit_price - order_items.discount as revenue,
        order_items.quantity * order_items.unit_cost as cost,
        order_items.quantity * (order_items.unit_price - order_items.unit_cost) - order_items.discount as margin,

        -- timestamps
        order_items.updated_at,
        order_items.loaded_at

    from order_items
    -- left: a line is never lost for want of its product
    left join products on order_items.product_id = products.product_id

)

select * from enriched
