{{ config(unique_key='customer_id', indexes=[{'columns': ['customer_id'], 'unique': true}]) }}
-- It misses a customer that lost an order: the order is gone, and nothing of the customer's has a new time.

with customers as (

    select * from {{ ref('dim_customers') }}
    where customer_id is not null

),

orders as (

    select * from {{ ref('fct_orders') }}

),

{% if is_incremental() %}

    changed as (

        select customer_id from customers where loaded_at > (select max(loaded_at) from {{ this }})
        union
        select customer_id from orders where loaded_at > (select max(loaded_at) from {{ this }})

    ),

{% endif %}

customer_orders as (

    select
        customer_id,
        count(*)::integer as order_count,
        sum(revenue) as lifetime_revenue,
        sum(margin) as lifetime_margin,
        min(ordered_on) as first_ordered_on,
        max(ordered_on) as last_ordered_on,
        max(loaded_at) as loaded_at
    from orders
    where
        not is_cancelled
        {% if is_incremental() %}
            and customer_id in (select customer_id from changed)
        {% endif %}
    group by customer_id

),

final as (

    select
        customers.customer_key,
        customers.customer_id,
        case
            when coalesce(customer_orders.order_count, 0) = 0 then 'prospect'
            when customer_orders.order_count >= 10 or customer_orders.lifetime_revenue >= 5000 then 'loyal'
            when customer_orders.order_count >= 3 then 'regular'
            else 'new'
        end as segment,
        coalesce(customer_orders.order_count, 0) as order_count,
        coalesce(customer_orders.lifetime_revenue, 0) as lifetime_revenue,
        coalesce(customer_orders.lifetime_margin, 0) as lifetime_margin,
        customer_orders.first_ordered_on,
        customer_orders.last_ordered_on,
        greatest(customers.loaded_at, customer_orders.loaded_at) as loaded_at
    from customers
    left join customer_orders on customers.customer_id = customer_orders.customer_id
    {% if is_incremental() %}
        where customers.customer_id in (select customer_id from changed)
    {% endif %}

)

select * from final
