-- The money of an order is the money of its lines, to the cent. What was loaded since either was built is left out, and
-- lines whose order isn't there: a test of staging says whether it should be.
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
left join lines on orders.order_id = lines.order_id
where
    (
        orders.revenue != coalesce(lines.revenue, 0)
        or orders.units != coalesce(lines.units, 0)
        or orders.order_total != orders.revenue + orders.shipping_fee
    )
    and orders.order_id not in ({{ orders_in_flight(['fct_sales', 'fct_orders']) }})
