{{ config(unique_key='product_key') }}
-- built after the sales, so that it has each product that they found: depends_on: {{ ref('fct_sales') }}

with products as (

    select * from {{ ref('stg_products') }}
    {% if in_place.is_incremental() %}
        where loaded_xid >= {{ in_place.horizon() }}
    {% endif %}

),

known as (

    select
        -- ids
        {{ surrogate_key('product_id') }} as product_key,
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
        {{ unknown_key() }}, null, null, 'Unknown', 'Unknown', null, null,
        null, null, null, false, false, null, null, null

)

select * from final
