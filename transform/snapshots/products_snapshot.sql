{% snapshot products_snapshot %}

{{
    config(
        unique_key='product_id',
        strategy='check',
        check_cols=[
            'sku', 'product_name', 'category', 'tags', 'attributes',
            'price', 'cost', 'is_active', 'is_deleted',
        ],
        indexes=[{'columns': ['product_id']}, {'columns': ['dbt_scd_id']}, {'columns': ['loaded_xid']}],
    )
}}

{%- set changed %}
    select product_id from {{ ref('stg_products') }} where loaded_xid >= {{ in_place.horizon() }}
{%- endset %}

    select
        product_id,
        sku,
        product_name,
        category,
        tags,
        attributes,
        price,
        cost,
        is_active,
        is_deleted,
        created_at,
        -- a deleted row was last changed when the loader found it deleted
        coalesce(deleted_at, updated_at) as changed_at,
        {{ in_place.version_xid() }} as loaded_xid
    from {{ ref('stg_products') }}
    {% if in_place.snapshot_goes_on() %}
        where product_id in (select product_id from {{ in_place.staged_keys(changed) }})
    {% endif %}

{% endsnapshot %}
