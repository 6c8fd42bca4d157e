-- A line has its order's status, customer and time. Leaves out rows loaded since either table was built.
select
    sales.order_item_id,
    sales.order_status,
    orders.order_status as status_of_the_order
from {{ ref('fct_sales') }} as sales
inner join {{ ref('fct_orders') }} as orders on sales.order_id = orders.order_id
where
    (
        sales.order_status != orders.order_status
        or sales.is_cancelled != orders.is_cancelled
        or sales.customer_id is distinct from orders.customer_id
        or sales.ordered_at != orders.ordered_at
    )
    and sales.order_id not in ({{ orders_in_flight(['fct_sales', 'fct_orders']) }})
