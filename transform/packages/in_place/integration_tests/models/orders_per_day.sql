{{ config(materialized='in_place_materialized_view', indexes=[{'columns': ['ordered_on'], 'unique': true}]) }}

select
    ordered_on,
    count(*) as order_count
from {{ ref('fct_orders') }}
group by ordered_on
