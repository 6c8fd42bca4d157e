with source as (

    select * from {{ source('raw', 'order_items') }}

),

renamed as (

    select
        -- ids
        order_item_id,
        order_id,
        product_id,

        -- numbers
        quantity::integer as quantity,
        unit_price::numeric(12, 2) as unit_price,
        unit_cost::numeric(12, 2) as unit_cost,
        discount::numeric(12, 2) as discount,

        -- booleans
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
