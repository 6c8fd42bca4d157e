-- The money of an order is the money of its lines, to the cent.
with lines as (

    select
        order_id,
        sum(revenue) as revenue,
        sum(quantity) as units
    from {{ ref('fct_sales') }}
    group by order_id

)

select
    orders.order_id,
    orders.revenue as order_revenue,
    lines.revenue as lines_revenue
from {{ ref('fct_orders') }} as orders
full join lines on orders.order_id = lines.order_id
where
    orders.order_id is null
    or orders.revenue != coalesce(lines.revenue, 0)
    or orders.units != coalesce(lines.units, 0)
