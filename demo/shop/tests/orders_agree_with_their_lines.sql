-- An order's money equals the sum of its lines, to the cent, and no line counts without its order. Leaves out rows
-- loaded after either table was built, and lines whose status says that their order is missing: a test of staging
-- checks those.
with lines as (

    select
        order_id,
        sum(revenue) as revenue,
        sum(quantity) as units
    from {{ ref('fct_sales') }}
    where order_status not in ('unknown', 'deleted')
    group by order_id

)

select
    coalesce(orders.order_id, lines.order_id) as order_id,
    orders.revenue as order_revenue,
    lines.revenue as lines_revenue
from {{ ref('fct_orders') }} as orders
full join lines on orders.order_id = lines.order_id
where
    (
        orders.order_id is null
        or orders.revenue != coalesce(lines.revenue, 0)
        or orders.units != coalesce(lines.units, 0)
        or orders.order_total != orders.revenue + orders.shipping_fee
    )
    and coalesce(orders.order_id, lines.order_id) not in ({{ orders_in_flight(['fct_sales', 'fct_orders']) }})
