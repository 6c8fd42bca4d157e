-- a row per mode of shipment
{{
    config(
        unique_key='l_shipmode',
        changed_by=[{'model': 'late_orders', 'key': 'l_shipmode'}],
    )
}}

select
    l_shipmode,
    sum(high_line_count) as high_line_count,
    sum(low_line_count) as low_line_count
from {{ ref('late_orders') }}
group by l_shipmode
