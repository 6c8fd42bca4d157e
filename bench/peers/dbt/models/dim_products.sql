{{ config(unique_key='product_key', indexes=[{'columns': ['product_key'], 'unique': true}]) }}

with products as (

    select * from {{ source('staging', 'stg_products') }}
    {% if is_incremental() %}
        where greatest(loaded_at, deleted_at) > (select max(loaded_at) from {{ this }})
    {% endif %}

),

known as (

    select
        {{ surrogate_key('product_id') }} as product_key,
        product_id,
        sku,
        product_name,
        category,
        tags,
        attributes ->> 'color' as color,
        price,
        cost,
        price - cost as unit_margin,
        is_active,
        is_deleted,
        created_at,
        updated_at,
        loaded_at
    from products

),

final as (

    select * from known
    union all
    select
        {{ unknown_key() }}, null, null, 'Unknown', 'Unknown', null, null,
        null, null, null, false, false, null, null, null

)

select * from final
