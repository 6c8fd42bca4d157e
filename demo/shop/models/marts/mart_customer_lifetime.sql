{{
    config(
        unique_key='customer_id',
        changed_by=[
            {'model': 'dim_customers', 'key': 'customer_id', 'columns': ['customer_key']},
            {'model': 'fct_orders', 'key': 'customer_id'},
        ],
    )
}}

with customers as (

    select * from {{ ref('dim_customers') }}
    where customer_id is not null

),

orders as (

    select * from {{ ref('fct_orders') }}
    where not is_cancelled

),

customer_orders as (

    select
        customer_id,
        count(*)::integer as order_count,
        sum(revenue) as lifetime_revenue,
        sum(margin) as lifetime_margin,
        min(ordered_on) as first_ordered_on,
        max(ordered_on) as last_ordered_on
    from orders
    group by customer_id

),

final as (

    select
        -- ids
        customers.customer_key,
        customers.customer_id,

        -- text
        {{ customer_segment('customer_orders.order_count', 'customer_orders.lifetime_revenue') }} as segment,

        -- numbers
        coalesce(customer_orders.order_count, 0) as order_count,
        coalesce(customer_orders.lifetime_revenue, 0) as lifetime_revenue,
        coalesce(customer_orders.lifetime_margin, 0) as lifetime_margin,

        -- dates
        customer_orders.first_ordered_on,
        customer_orders.last_ordered_on

    from customers
    left join customer_orders on customers.customer_id = customer_orders.customer_id

)

select * from final
