{{ config(materialized='in_place_view') }}

select * from {{ ref('q10_customers') }}
order by revenue desc
limit 20
