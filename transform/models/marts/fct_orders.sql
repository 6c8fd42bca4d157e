with orders as (

    select * from {{ ref('int_orders_enriched') }}

),

order_items as (

    select * from {{ ref('int_order_items_enriched') }}

),

order_totals as (

    select
        order_id,
        count(*) as line_count,
        sum(quantity) as units,
        sum(gross_revenue) as gross_revenue,
        sum(discount) as discount,
        sum(revenue) as revenue,
        sum(cost) as cost,
        sum(margin) as margin,
        max(loaded_at) as loaded_at
    from order_items
    group by order_id

),

final as (

    select
        -- ids
        orders.order_id,
        orders.customer_id,

        -- text
        orders.order_status,

        -- numbers
        coalesce(order_totals.line_count, 0) as line_count,
        coalesce(order_totals.units, 0) as units,
        coalesce(order_totals.gross_revenue, 0) as gross_revenue,
        coalesce(order_totals.discount, 0) as discount,
        coalesce(order_totals.revenue, 0) as revenue,
        coalesce(order_totals.cost, 0) as cost,
        coalesce(order_totals.margin, 0) as margin,
        orders.shipping_fee,
        coalesce(order_totals.revenue, 0) + orders.shipping_fee as order_total,
        orders.hours_to_pay,
        orders.days_to_ship,
        orders.days_to_deliver,

        -- booleans
        orders.is_cancelled,

        -- dates
        orders.ordered_on,

        -- timestamps
        orders.ordered_at,
        orders.paid_at,
        orders.shipped_at,
        orders.delivered_at,
        orders.cancelled_at,
        greatest(orders.loaded_at, order_totals.loaded_at) as loaded_at

    from orders
    left join order_totals on orders.order_id = order_totals.order_id

)

select * from final
