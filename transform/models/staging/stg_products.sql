with source as (

    select * from {{ source('raw', 'products') }}

),

renamed as (

    select
        -- ids
        product_id,

        -- text
        trim(sku) as sku,
        trim(name) as product_name,
        trim(category) as category,
        tags,
        attributes,

        -- numbers
        price::numeric(12, 2) as price,
        cost::numeric(12, 2) as cost,

        -- booleans
        is_active,

        -- timestamps
        created_at,
        updated_at,
        _sdc_batched_at as loaded_at

    from source

)

select * from renamed
