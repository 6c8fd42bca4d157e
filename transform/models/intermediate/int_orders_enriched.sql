with orders as (

    select * from {{ ref('stg_orders') }}

),

customers as (

    select * from {{ ref('stg_customers') }}

),

enriched as (

    select
        -- ids
        orders.order_id,
        orders.customer_id,

        -- text
        orders.order_status,
        customers.email as customer_email,
        customers.country as customer_country,

        -- numbers
        orders.shipping_fee,
        extract(epoch from orders.paid_at - orders.ordered_at) / 3600 as hours_to_pay,
        extract(epoch from orders.shipped_at - orders.ordered_at) / 86400 as days_to_ship,
        extract(epoch from orders.delivered_at - orders.ordered_at) / 86400 as days_to_deliver,

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

    from orders
    -- left: an order is never lost for want of its customer
    left join customers on orders.customer_id = customers.customer_id

)

select * from enriched
