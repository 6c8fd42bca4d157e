with source as (

    select * from {{ source('raw', 'orders') }}

),

renamed as (

    select
        -- ids
        order_id,
        customer_id,

        -- text
        lower({{ tidemark.cleaned('status') }}) as order_status,

        -- numbers
        shipping_fee::numeric(12, 2) as shipping_fee,

        -- booleans
        _sdc_deleted_at is not null as is_deleted,

        -- timestamps
        ordered_at,
        paid_at,
        shipped_at,
        delivered_at,
        cancelled_at,
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
