{{
    config(
        unique_key='order_item_id',
        indexes=[{'columns': ['order_item_id'], 'unique': true}, {'columns': ['order_id']}],
        pre_hook="{{ delete_marked('stg_order_items', 'order_item_id') }}",
    )
}}
-- It misses a late commit: a row with an earlier time than one that was built.

with order_items as (

    select * from {{ source('staging', 'stg_order_items') }} where not is_deleted

),

orders as (

    select * from {{ source('staging', 'stg_orders') }} where not is_deleted

),

products as (

    select * from {{ source('staging', 'stg_products') }}

),

customers as (

    select * from {{ source('staging', 'stg_customers') }}

),

final as (

    select
        order_items.order_item_id,
        order_items.order_id,
        order_items.product_id,
        orders.customer_id,
        {{ surrogate_key('products.product_id') }} as product_key,
        {{ surrogate_key('customers.customer_id') }} as customer_key,
        coalesce(orders.order_status, 'unknown') as order_status,
        order_items.quantity,
        order_items.unit_price,
        order_items.unit_cost,
        order_items.quantity * order_items.unit_price as gross_revenue,
        order_items.discount,
        order_items.quantity * order_items.unit_price - order_items.discount as revenue,
        order_items.quantity * order_items.unit_cost as cost,
        order_items.quantity * (order_items.unit_price - order_items.unit_cost) - order_items.discount as margin,
        orders.cancelled_at is not null as is_cancelled,
        (coalesce(orders.ordered_at, order_items.created_at) at time zone 'UTC')::date as ordered_on,
        coalesce(orders.ordered_at, order_items.created_at) as ordered_at,
        greatest(order_items.loaded_at, orders.loaded_at) as loaded_at
    from order_items
    left join orders on order_items.order_id = orders.order_id
    left join products on order_items.product_id = products.product_id
    left join customers on orders.customer_id = customers.customer_id

)

select * from final
{% if is_incremental() %}
    where loaded_at > (select max(loaded_at) from {{ this }})
{% endif %}
