-- a row per order and mode with lines that arrived late
{{
    config(
        unique_key=['l_orderkey', 'l_shipmode'],
        build_by='l_orderkey',
        changed_by=[
            {'model': 'stg_lineitem', 'key': 'l_orderkey'},
            {'model': 'stg_orders', 'key': {'l_orderkey': 'o_orderkey'}},
        ],
    )
}}

with orders as (

    select * from {{ ref('stg_orders') }} where not is_deleted

),

lineitem as (

    select * from {{ ref('stg_lineitem') }}
    where
        not is_deleted
        and l_shipmode in ('MAIL', 'SHIP')
        and l_commitdate < l_receiptdate
        and l_shipdate < l_commitdate
        and l_receiptdate >= '1994-01-01' and l_receiptdate < '1995-01-01'

),

final as (

    select
        lineitem.l_orderkey,
        lineitem.l_shipmode,
        count(*) filter (where orders.o_orderpriority in ('1-URGENT', '2-HIGH')) as high_line_count,
        count(*) filter (where orders.o_orderpriority not in ('1-URGENT', '2-HIGH')) as low_line_count
    from orders
    inner join lineitem on orders.o_orderkey = lineitem.l_orderkey
    group by lineitem.l_orderkey, lineitem.l_shipmode

)

select * from final
