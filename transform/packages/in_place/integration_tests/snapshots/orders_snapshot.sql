{% snapshot orders_snapshot %}

{{
    config(
        unique_key='order_id',
        strategy='check',
        check_cols=['status', 'amount', 'is_deleted'],
        changed_by=[{'model': 'stg_orders', 'key': 'order_id'}],
        indexes=[{'columns': ['order_id']}, {'columns': ['dbt_scd_id']}],
    )
}}

select order_id, status, amount, is_deleted from {{ ref('stg_orders') }}

{% endsnapshot %}
