{{
    config(
        materialized='incremental',
        unique_key='order_item_id',
        on_schema_change='fail',
        indexes=[{'columns': ['order_item_id'], 'unique': true}],
    )
}}

with order_items as (

    select * from {{ ref('int_order_items_enriched') }}

),

orders as (

    select * from {{ ref('int_orders_enriched') }}

),

sales as (

    select
        -- ids
        order_items.order_item_id,
        order_items.order_id,
        order_items.product_id,
        orders.customer_id,

        -- text
        orders.order_status,

        -- numbers
        order_items.quantity,
        order_items.unit_price,
        order_items.unit_cost,
        order_items.gross_revenue,
        order_items.discount,
        order_items.revenue,
        order_items.cost,
        order_items.margin,

        -- booleans
        orders.is_cancelled,

        -- dates
        orders.ordered_on,

        -- timestamps
        orders.ordered_at,
        order_items.loaded_at as line_loaded_at,
        orders.loaded_at as order_loaded_at,
        greatest(order_items.loaded_at, orders.loaded_at) as loaded_at

    from order_items
    left join orders on order_items.order_id = orders.order_id

),

final as (

    select sales.*
    from sales
    {% if is_incremental() %}
        -- Row by row and for the line and its order each: an order moves on without its lines, and a batch that was
        -- stamped early and committed late would stay behind `max(loaded_at)` for ever.
        left join {{ this }} as existing on sales.order_item_id = existing.order_item_id
        where
            existing.order_item_id is null
            or sales.line_loaded_at is distinct from existing.line_loaded_at
            or sales.order_loaded_at is distinct from existing.order_loaded_at
    {% endif %}

)

select * from final
