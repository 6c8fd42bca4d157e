-- a row per day of shipment
{{
    config(
        unique_key='l_shipdate',
        changed_by=[{'model': 'stg_lineitem', 'key': 'l_shipdate'}],
    )
}}

select
    l_shipdate,
    sum(l_extendedprice * l_discount) as revenue
from {{ ref('stg_lineitem') }}
where
    not is_deleted
    and l_shipdate >= '1994-01-01' and l_shipdate < '1995-01-01'
    and l_discount between 0.05 and 0.07
    and l_quantity < 24
group by l_shipdate
