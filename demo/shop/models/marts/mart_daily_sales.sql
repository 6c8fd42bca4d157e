{{
    config(
        unique_key=['ordered_on', 'category', 'country'],
        build_by='ordered_on',
        changed_by=[
            {'model': 'fct_sales', 'key': 'ordered_on'},
            {'model': 'dim_products', 'key': 'product_id', 'columns': ['category'], 'through': 'fct_sales'},
            {'model': 'dim_customers', 'key': 'customer_id', 'columns': ['country'], 'through': 'fct_sales'},
        ],
    )
}}

with sales as (

    select * from {{ ref('fct_sales') }}
    where not is_cancelled

),

products as (

    select * from {{ ref('dim_products') }}

),

customers as (

    select * from {{ ref('dim_customers') }}

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
    left join products on sales.product_id = products.product_id
    left join customers on sales.customer_id = customers.customer_id
    group by sales.ordered_on, coalesce(products.category, 'Unknown'), coalesce(customers.country, 'Unknown')

)

select * from final
