{{
    config(
        materialized='incremental_by_key',
        unique_key=['order_id', 'version'],
        build_by='order_id',
        changed_by=[{'model': 'orders_snapshot', 'key': 'order_id'}],
    )
}}

select
    order_id,
    row_number() over (partition by order_id order by dbt_valid_from) as version,
    status,
    amount,
    dbt_valid_from as valid_from,
    dbt_valid_to as valid_to
from {{ ref('orders_snapshot') }}
