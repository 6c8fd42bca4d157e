{{
    config(
        unique_key='order_item_id',
        changed_by=[
            {'model': 'stg_order_items', 'key': 'order_item_id'},
            {'model': 'stg_orders', 'key': 'order_id'},
            {'model': 'dim_products', 'key': 'product_id', 'columns': ['product_key']},
            {'model': 'dim_customers', 'key': 'customer_id', 'columns': ['customer_key']},
        ],
        partition_by={'column': 'ordered_on', 'grain': 'month'},
        indexes=[
            {'columns': ['order_id']},
            {'columns': ['product_id']},
            {'columns': ['customer_id']},
            {'columns': ['ordered_on']},
        ],
    )
}}

with sales as (

    select * from {{ ref('int_order_items_enriched') }}

),

products as (

    select * from {{ ref('dim_products') }}

),

customers as (

    select * from {{ ref('dim_customers') }}

),

final as (

    select
        -- ids
        sales.order_item_id,
        sales.order_id,
        sales.product_id,
        sales.customer_id,
        coalesce(products.product_key, {{ tidemark.unknown_key() }}) as product_key,
        coalesce(customers.customer_key, {{ tidemark.unknown_key() }}) as customer_key,

        -- text
        sales.order_status,

        -- numbers
        sales.quantity,
        sales.unit_price,
        sales.unit_cost,
        sales.gross_revenue,
        sales.discount,
        sales.revenue,
        sales.cost,
        sales.margin,

        -- booleans
        sales.is_cancelled,

        -- dates
        sales.ordered_on,

        -- timestamps
        sales.ordered_at,
        sales.loaded_at

    from sales
    -- left joins: a sale stays if its product or its customer is missing
    left join products on sales.product_id = products.product_id
    left join customers on sales.customer_id = customers.customer_id

)

select * from final
