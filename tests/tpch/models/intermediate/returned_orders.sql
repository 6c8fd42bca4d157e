-- a row per order of the quarter with returned lines
{{
    config(
        unique_key='o_orderkey',
        changed_by=[
            {'model': 'stg_orders', 'key': 'o_orderkey'},
            {'model': 'stg_lineitem', 'key': {'o_orderkey': 'l_orderkey'}},
        ],
        indexes=[{'columns': ['o_custkey']}],
    )
}}

with orders as (

    select * from {{ ref('stg_orders') }}
    where not is_deleted and o_orderdate >= '1993-10-01' and o_orderdate < '1994-01-01'

),

lineitem as (

    select * from {{ ref('stg_lineitem') }} where not is_deleted and l_returnflag = 'R'

),

final as (

    select
        orders.o_orderkey,
        orders.o_custkey,
        sum(lineitem.l_extendedprice * (1 - lineitem.l_discount)) as revenue
    from orders
    inner join lineitem on orders.o_orderkey = lineitem.l_orderkey
    group by orders.o_orderkey, orders.o_custkey

)

select * from final
