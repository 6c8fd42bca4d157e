{{ config(materialized='in_place_view') }}

select
    order_id,
    customer_id,
    status,
    amount,
    deleted_at is not null as is_deleted,
    ordered_on,
    loaded_xid
from {{ source('raw', 'orders') }}
