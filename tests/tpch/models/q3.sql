{{ config(materialized='in_place_view') }}

select
    l_orderkey,
    revenue,
    o_orderdate,
    o_shippriority
from {{ ref('q3_orders') }}
where c_mktsegment = 'BUILDING'
order by revenue desc, o_orderdate
limit 10
