-- above a table that dbt itself replaces
{{ config(materialized='in_place_incremental', unique_key='order_id') }}

select
    order_id,
    amount
from {{ ref('large_orders') }}
{% if in_place.is_incremental() %}
    where loaded_xid >= {{ in_place.horizon() }}
{% endif %}
