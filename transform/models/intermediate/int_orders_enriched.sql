with orders as (

    select * from {{ ref('stg_orders') }}
    where not is_deleted

),

customers as (

    select * from {{ ref('stg_customers') }}

),

enriched as (

    select
        -- ids
        orders.order_id,
        orders.customer_id,
        {{ surrogate_key(['customers.customer_id']) }} as customer_key,

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

    from orders
    -- left: an order is never lost for want of its customer
    left join customers on orders.customer_id = customers.customer_id

)

select * from enriched
