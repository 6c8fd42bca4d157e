{{
    config(
        unique_key='order_id',
        changed_by=[
            {'model': 'stg_orders', 'key': 'order_id'},
            {'model': 'fct_sales', 'key': 'order_id'},
            {'model': 'dim_customers', 'key': 'customer_id', 'columns': ['customer_key']},
        ],
        indexes=[{'columns': ['customer_id']}],
    )
}}

with orders as (

    select * from {{ ref('int_orders_enriched') }}

),

sales as (

    select * from {{ ref('fct_sales') }}

),

customers as (

    select * from {{ ref('dim_customers') }}

),

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
    group by order_id

),

final as (

    select
        -- ids
        orders.order_id,
        orders.customer_id,
        coalesce(customers.customer_key, {{ tidemark.unknown_key() }}) as customer_key,

        -- text
        orders.order_status,

        -- numbers
        coalesce(order_totals.line_count, 0) as line_count,
        coalesce(order_totals.units, 0) as units,
        coalesce(order_totals.gross_revenue, 0) as gross_revenue,
        coalesce(order_totals.discount, 0) as discount,
        coalesce(order_totals.revenue, 0) as revenue,
        coalesce(order_totals.cost, 0) as cost,
        coalesce(order_totals.margin, 0) as margin,
        orders.shipping_fee,
        coalesce(order_totals.revenue, 0) + orders.shipping_fee as order_total,
        orders.hours_to_pay,
        orders.days_to_ship,
        orders.days_to_deliver,

        -- booleans
        orders.is_cancelled,

        -- dates
        orders.ordered_on,

        -- timestamps
        orders.ordered_at,
        orders.paid_at,
        orders.shipped_at,
        orders.delivered_at,
        orders.cancelled_at,
        greatest(orders.loaded_at, order_totals.loaded_at) as loaded_at

    from orders
    -- left joins: an order stays if it has no lines, or if its customer is missing
    left join order_totals on orders.order_id = order_totals.order_id
    left join customers on orders.customer_id = customers.customer_id

)

select * from final
