-- What a line says of its order is what the order says of itself.
select
    sales.order_item_id,
    sales.order_status,
    orders.order_status as status_of_the_order
from {{ ref('fct_sales') }} as sales
inner join {{ ref('fct_orders') }} as orders on sales.order_id = orders.order_id
where
    sales.order_status is distinct from orders.order_status
    or sales.is_cancelled is distinct from orders.is_cancelled
    or sales.customer_id is distinct from orders.customer_id
    or sales.ordered_at is distinct from orders.ordered_at
