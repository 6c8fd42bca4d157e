{{
    config(
        materialized='incremental_by_key',
        unique_key='customer_id',
        changed_by=[{'model': 'fct_orders', 'key': 'customer_id'}],
    )
}}

select
    customer_id,
    count(*) as order_count,
    sum(amount) as lifetime_amount
from {{ ref('fct_orders') }}
group by customer_id
