{{ config(materialized='in_place_view') }}

select sum(revenue) as revenue from {{ ref('q6_days') }}
