-- a row per flag and status
{{
    config(
        unique_key=['l_returnflag', 'l_linestatus'],
        changed_by=[
            {
                'model': 'stg_lineitem',
                'key': {'l_returnflag': 'l_returnflag', 'l_linestatus': 'l_linestatus'},
            },
        ],
    )
}}

select
    l_returnflag,
    l_linestatus,
    sum(l_quantity) as sum_qty,
    sum(l_extendedprice) as sum_base_price,
    sum(l_extendedprice * (1 - l_discount)) as sum_disc_price,
    sum(l_extendedprice * (1 - l_discount) * (1 + l_tax)) as sum_charge,
    avg(l_quantity) as avg_qty,
    avg(l_extendedprice) as avg_price,
    avg(l_discount) as avg_disc,
    count(*) as count_order
from {{ ref('stg_lineitem') }}
where not is_deleted and l_shipdate <= '1998-09-02'
group by l_returnflag, l_linestatus
