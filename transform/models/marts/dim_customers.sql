with customers as (

    select * from {{ ref('stg_customers') }}

),

orders as (

    select * from {{ ref('fct_orders') }}

),

customer_orders as (

    select
        customer_id,
        count(*) as order_count,
        sum(revenue) as lifetime_revenue,
        min(ordered_on) as first_ordered_on,
        max(ordered_on) as last_ordered_on
    from orders
    where not is_cancelled
    group by customer_id

),

final as (

    select
        -- ids
        customers.customer_id,

        -- text
        customers.email,
        customers.first_name,
        customers.last_name,
        customers.phone,
        customers.country,
        customers.city,

        -- numbers
        coalesce(customer_orders.order_count, 0) as order_count,
        coalesce(customer_orders.lifetime_revenue, 0) as lifetime_revenue,

        -- booleans
        customers.marketing_opt_in,

        -- dates
        customer_orders.first_ordered_on,
        customer_orders.last_ordered_on,

        -- timestamps
        customers.created_at,
        customers.updated_at,
        customers.loaded_at

    from customers
    left join customer_orders on customers.customer_id = customer_orders.customer_id

)

select * from final
