{{ config(materialized='table') }}

select
    order_id,
    amount,
    loaded_xid
from {{ ref('stg_orders') }}
where amount >= 900 and not is_deleted
