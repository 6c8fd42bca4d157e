{{
    config(
        materialized='in_place_materialized_view',
        indexes=[{'columns': ['ordered_on', 'category', 'country'], 'unique': true}],
    )
}}

with sales as (

    -- columns by name: PostgreSQL can't drop or alter a column that a materialized view reads
    select
        ordered_on,
        order_id,
        product_key,
        customer_key,
        quantity,
        revenue,
        margin
    from {{ ref('fct_sales') }}
    where not is_cancelled

),

products as (

    select
        product_key,
        category
    from {{ ref('dim_products') }}

),

customers as (

    select
        customer_key,
        country
    from {{ ref('dim_customers') }}

),

final as (

    select
        sales.ordered_on,
        coalesce(products.category, 'Unknown') as category,
        coalesce(customers.country, 'Unknown') as country,
        count(*)::integer as line_count,
        count(distinct sales.order_id)::integer as order_count,
        sum(sales.quantity)::integer as units,
        sum(sales.revenue) as revenue,
        sum(sales.margin) as margin
    from sales
    -- left join: a sale counts even if its product or customer is not in the dimension yet
    left join products on sales.product_key = products.product_key
    left join customers on sales.customer_key = customers.customer_key
    group by sales.ordered_on, coalesce(products.category, 'Unknown'), coalesce(customers.country, 'Unknown')

)

select * from final
