with source as (

    select * from {{ source('raw', 'customers') }}

),

renamed as (

    select
        -- ids
        customer_id,

        -- text
        lower({{ cleaned('email') }}) as email,
        {{ cleaned('first_name') }} as first_name,
        {{ cleaned('last_name') }} as last_name,
        {{ cleaned('phone') }} as phone,
        upper({{ cleaned('country') }}) as country,
        {{ cleaned('city') }} as city,
        {{ cleaned('address') }} as address,
        attributes,

        -- booleans
        marketing_opt_in,
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
