{{ config(materialized='in_place_view') }}

select * from {{ ref('q18_orders') }}
order by o_totalprice desc, o_orderdate
limit 100
