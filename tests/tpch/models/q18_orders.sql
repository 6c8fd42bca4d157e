-- a row per order of more than 300 pieces
{{
    config(
        unique_key='o_orderkey',
        changed_by=[
            {'model': 'stg_orders', 'key': 'o_orderkey'},
            {'model': 'stg_lineitem', 'key': {'o_orderkey': 'l_orderkey'}},
            {'model': 'stg_customer', 'key': 'c_custkey'},
        ],
        indexes=[{'columns': ['c_custkey']}],
    )
}}

with customer as (

    select * from {{ ref('stg_customer') }} where not is_deleted

),

orders as (

    select * from {{ ref('stg_orders') }} where not is_deleted

),

lineitem as (

    select * from {{ ref('stg_lineitem') }} where not is_deleted

),

large_orders as (

    select l_orderkey from {{ ref('stg_lineitem') }}
    where not is_deleted
    group by l_orderkey
    having sum(l_quantity) > 300

),

final as (

    select
        customer.c_name,
        orders.o_custkey as c_custkey,
        orders.o_orderkey,
        orders.o_orderdate,
        orders.o_totalprice,
        sum(lineitem.l_quantity) as sum
    from orders
    inner join lineitem on orders.o_orderkey = lineitem.l_orderkey
    left join customer on orders.o_custkey = customer.c_custkey
    where orders.o_orderkey in (select l_orderkey from large_orders)
    group by customer.c_name, orders.o_custkey, orders.o_orderkey, orders.o_orderdate, orders.o_totalprice

)

select * from final
