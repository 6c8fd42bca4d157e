{% snapshot products_snapshot %}

{{
    config(
        unique_key='product_id',
        strategy='check',
        check_cols=[
            'sku', 'product_name', 'category', 'tags', 'attributes',
            'price', 'cost', 'is_active', 'is_deleted',
        ],
        updated_at='changed_at',
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
        -- a row that is gone was last changed when that was found
        coalesce(deleted_at, updated_at) as changed_at,
        loaded_xid,
        now() as recorded_at
    from {{ ref('stg_products') }}
    {% if is_incremental() %}
        where loaded_xid >= {{ horizon() }}
    {% endif %}

{% endsnapshot %}
