{{
    config(
        unique_key='product_id',
        null_keys='product_id',
        changed_by=[{'model': 'stg_products', 'key': 'product_id'}],
    )
}}

with products as (

    select * from {{ ref('stg_products') }}

),

known as (

    select
        -- ids
        {{ tidemark.surrogate_key('product_id') }} as product_key,
        product_id,

        -- text
        sku,
        product_name,
        category,
        tags,
        attributes ->> 'color' as color,

        -- numbers
        price,
        cost,
        price - cost as unit_margin,

        -- booleans
        is_active,
        is_deleted,

        -- timestamps
        created_at,
        updated_at,
        loaded_at

    from products

),

final as (

    select * from known
    union all
    -- the unknown member, for facts without a product
    select
        {{ tidemark.unknown_key() }}, null, null, 'Unknown', 'Unknown', null, null,
        null, null, null, false, false, null, null, null

)

select * from final
