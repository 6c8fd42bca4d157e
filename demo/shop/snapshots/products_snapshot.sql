{% snapshot products_snapshot %}

{{
    config(
        unique_key='product_id',
        strategy='check',
        check_cols=[
            'sku', 'product_name', 'category', 'tags', 'attributes',
            'price', 'cost', 'is_active', 'is_deleted',
        ],
        indexes=[{'columns': ['product_id']}, {'columns': ['dbt_scd_id']}],
        changed_by=[{'model': 'stg_products', 'key': 'product_id'}],
    )
}}

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
        coalesce(deleted_at, updated_at) as changed_at
    from {{ ref('stg_products') }}

{% endsnapshot %}
