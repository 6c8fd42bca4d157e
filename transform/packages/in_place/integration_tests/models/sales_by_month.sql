{{
    config(
        materialized='incremental_by_key',
        unique_key=['month', 'status'],
        changed_by=[
            {
                'model': 'fct_orders',
                'key': {'month': "date_trunc('month', ordered_on)::date", 'status': 'status'},
                'columns': ['ordered_on', 'status', 'amount'],
            },
        ],
        by_difference=true,
    )
}}

select
    date_trunc('month', ordered_on)::date as month,
    status,
    count(*) as order_count,
    sum(amount) as amount,
    count(amount) as amount_count
from {{ ref('fct_orders') }}
group by date_trunc('month', ordered_on)::date, status
