-- No WITH in a view: PostgreSQL would plan it separately, and a build of a few changed rows would read all rows.
select
    -- ids
    orders.order_id,
    orders.customer_id,
    {{ surrogate_key('customers.customer_id') }} as customer_key,

    -- text
    orders.order_status,
    customers.email as customer_email,
    customers.country as customer_country,

    -- numbers
    orders.shipping_fee,
    round(extract(epoch from orders.paid_at - orders.ordered_at) / 3600, 2) as hours_to_pay,
    round(extract(epoch from orders.shipped_at - orders.ordered_at) / 86400, 2) as days_to_ship,
    round(extract(epoch from orders.delivered_at - orders.ordered_at) / 86400, 2) as days_to_deliver,

    -- booleans
    orders.cancelled_at is not null as is_cancelled,

    -- dates
    {{ utc('orders.ordered_at') }}::date as ordered_on,

    -- timestamps
    orders.ordered_at,
    orders.paid_at,
    orders.shipped_at,
    orders.delivered_at,
    orders.cancelled_at,
    orders.updated_at,
    orders.loaded_at

from {{ ref('stg_orders') }} as orders
-- left join: an order stays if its customer is missing
left join {{ ref('stg_customers') }} as customers on orders.customer_id = customers.customer_id
where not orders.is_deleted
