-- a row per customer with returned lines
{{
    config(
        unique_key='c_custkey',
        changed_by=[
            {'model': 'stg_customer', 'key': 'c_custkey'},
            {'model': 'returned_orders', 'key': {'c_custkey': 'o_custkey'}},
        ],
        static=['stg_nation'],
    )
}}

with customer as (

    select * from {{ ref('stg_customer') }} where not is_deleted

),

nation as (

    select * from {{ ref('stg_nation') }}

),

orders as (

    select * from {{ ref('returned_orders') }}

),

final as (

    select
        customer.c_custkey,
        customer.c_name,
        sum(orders.revenue) as revenue,
        customer.c_acctbal,
        nation.n_name,
        customer.c_address,
        customer.c_phone,
        customer.c_comment
    from customer
    inner join orders on customer.c_custkey = orders.o_custkey
    inner join nation on customer.c_nationkey = nation.n_nationkey
    group by
        customer.c_custkey, customer.c_name, customer.c_acctbal, nation.n_name, customer.c_address,
        customer.c_phone, customer.c_comment

)

select * from final
