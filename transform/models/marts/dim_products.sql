with products as (

    select * from {{ ref('stg_products') }}

),

final as (

    select
        -- ids
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

        -- timestamps
        created_at,
        updated_at,
        loaded_at

    from products

)

select * from final
