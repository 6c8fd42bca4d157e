-- a row per order before the day with lines shipped after it, of customers in every segment: see q3
{{
    config(
        unique_key='l_orderkey',
        changed_by=[
            {'model': 'stg_lineitem', 'key': 'l_orderkey'},
            {'model': 'stg_orders', 'key': {'l_orderkey': 'o_orderkey'}},
            {'model': 'stg_customer', 'key': {'o_custkey': 'c_custkey'}},
        ],
        indexes=[{'columns': ['o_custkey']}],
    )
}}

with customer as (

    select * from {{ ref('stg_customer') }} where not is_deleted

),

orders as (

    select * from {{ ref('stg_orders') }} where not is_deleted and o_orderdate < '1995-03-15'

),

lineitem as (

    select * from {{ ref('stg_lineitem') }} where not is_deleted and l_shipdate > '1995-03-15'

),

final as (

    select
        lineitem.l_orderkey,
        sum(lineitem.l_extendedprice * (1 - lineitem.l_discount)) as revenue,
        orders.o_orderdate,
        orders.o_shippriority,
        orders.o_custkey,
        customer.c_mktsegment
    from orders
    inner join lineitem on orders.o_orderkey = lineitem.l_orderkey
    -- an inner join would leave no row here that a customer's later change of segment could find
    left join customer on orders.o_custkey = customer.c_custkey
    group by lineitem.l_orderkey, orders.o_orderdate, orders.o_shippriority, orders.o_custkey, customer.c_mktsegment

)

select * from final
