with source as (

    select * from {{ source('raw', 'products') }}

),

renamed as (

    select
        -- ids
        product_id,

        -- text
        {{ tidemark.cleaned('sku') }} as sku,
        {{ tidemark.cleaned('name') }} as product_name,
        {{ tidemark.cleaned('category') }} as category,
        tags,
        attributes,

        -- numbers
        price::numeric(12, 2) as price,
        cost::numeric(12, 2) as cost,

        -- booleans
        is_active,
        _sdc_deleted_at is not null as is_deleted,

        -- timestamps
        created_at,
        updated_at,
        _sdc_deleted_at as deleted_at,
        _sdc_extracted_at as extracted_at,
        _sdc_batched_at as loaded_at,

        -- the transaction that loaded the row; models find changed rows by it
        _tidemark_loaded_xid as loaded_xid

    from source

)

select * from renamed
