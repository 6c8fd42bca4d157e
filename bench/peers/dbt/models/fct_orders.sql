{{
    config(
        unique_key='order_id',
        indexes=[{'columns': ['order_id'], 'unique': true}, {'columns': ['customer_id']}],
        pre_hook="{{ delete_marked('stg_orders', 'order_id') }}",
    )
}}
-- It misses an order that lost a line: the line is gone, and the order and its other lines have no new time.

with orders as (

    select * from {{ source('staging', 'stg_orders') }} where not is_deleted

),

customers as (

    select * from {{ source('staging', 'stg_customers') }}

),

sales as (

    select * from {{ ref('fct_sales') }}

),

{% if is_incremental() %}

    changed as (

        select order_id from orders where loaded_at > (select max(loaded_at) from {{ this }})
        union
        select order_id from sales where loaded_at > (select max(loaded_at) from {{ this }})

    ),

{% endif %}

order_totals as (

    select
        order_id,
        count(*)::integer as line_count,
        sum(quantity)::integer as units,
        sum(gross_revenue) as gross_revenue,
        sum(discount) as discount,
        sum(revenue) as revenue,
        sum(cost) as cost,
        sum(margin) as margin,
        max(loaded_at) as loaded_at
    from sales
    {% if is_incremental() %}
        where order_id in (select order_id from changed)
    {% endif %}
    group by order_id

),

final as (

    select
        orders.order_id,
        orders.customer_id,
        {{ surrogate_key('customers.customer_id') }} as customer_key,
        orders.order_status,
        coalesce(order_totals.line_count, 0) as line_count,
        coalesce(order_totals.units, 0) as units,
        coalesce(order_totals.gross_revenue, 0) as gross_revenue,
        coalesce(order_totals.discount, 0) as discount,
        coalesce(order_totals.revenue, 0) as revenue,
        coalesce(order_totals.cost, 0) as cost,
        coalesce(order_totals.margin, 0) as margin,
        orders.shipping_fee,
        coalesce(order_totals.revenue, 0) + orders.shipping_fee as order_total,
        round(extract(epoch from orders.paid_at - orders.ordered_at) / 3600, 2) as hours_to_pay,
        round(extract(epoch from orders.shipped_at - orders.ordered_at) / 86400, 2) as days_to_ship,
        round(extract(epoch from orders.delivered_at - orders.ordered_at) / 86400, 2) as days_to_deliver,
        orders.cancelled_at is not null as is_cancelled,
        (orders.ordered_at at time zone 'UTC')::date as ordered_on,
        orders.ordered_at,
        orders.paid_at,
        orders.shipped_at,
        orders.delivered_at,
        orders.cancelled_at,
        greatest(orders.loaded_at, order_totals.loaded_at) as loaded_at
    from orders
    left join customers on orders.customer_id = customers.customer_id
    left join order_totals on orders.order_id = order_totals.order_id
    {% if is_incremental() %}
        where orders.order_id in (select order_id from changed)
    {% endif %}

)

select * from final
