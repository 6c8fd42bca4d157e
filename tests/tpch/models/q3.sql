select
    l_orderkey,
    sum(l_extendedprice * (1 - l_discount)) as revenue,
    o_orderdate,
    o_shippriority
from {{ source('raw', 'customer') }}
inner join {{ source('raw', 'orders') }} on c_custkey = o_custkey
inner join {{ source('raw', 'lineitem') }} on o_orderkey = l_orderkey
where c_mktsegment = 'BUILDING' and o_orderdate < '1995-03-15' and l_shipdate > '1995-03-15'
group by l_orderkey, o_orderdate, o_shippriority
order by revenue desc, o_orderdate
limit 10
