{% snapshot orders_snapshot %}

{{
    config(
        unique_key='order_id',
        strategy='check',
        check_cols=['status', 'amount', 'is_deleted'],
        indexes=[{'columns': ['order_id']}, {'columns': ['dbt_scd_id']}, {'columns': ['loaded_xid']}],
    )
}}

{%- set changed %}
    select order_id from {{ ref('stg_orders') }} where loaded_xid >= {{ in_place.horizon() }}
{%- endset %}

    select
        order_id,
        status,
        amount,
        is_deleted,
        {{ in_place.version_xid() }} as loaded_xid
    from {{ ref('stg_orders') }}
    {% if in_place.snapshot_goes_on() %}
        where order_id in (select order_id from {{ in_place.staged_keys(changed) }})
    {% endif %}

{% endsnapshot %}
