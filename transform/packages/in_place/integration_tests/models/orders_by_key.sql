{{
    config(
        materialized='incremental_by_key',
        unique_key='order_id',
        changed_by=[
            {'model': 'stg_orders', 'key': 'order_id'},
            {'model': 'customers_by_key', 'key': 'customer_id', 'columns': ['order_count']},
        ],
        indexes=[{'columns': ['customer_id']}],
    )
}}

with orders as (

    select * from {{ ref('stg_orders') }} where not is_deleted

),

customers as (

    select * from {{ ref('customers_by_key') }}

),

final as (

    select
        orders.order_id,
        orders.customer_id,
        orders.amount,
        customers.order_count
    from orders
    left join customers on orders.customer_id = customers.customer_id

)

select * from final
