with source as (

    select * from {{ source('raw', 'customers') }}

),

renamed as (

    select
        -- ids
        customer_id,

        -- text
        lower({{ tidemark.cleaned('email') }}) as email,
        {{ tidemark.cleaned('first_name') }} as first_name,
        {{ tidemark.cleaned('last_name') }} as last_name,
        {{ tidemark.cleaned('phone') }} as phone,
        upper({{ tidemark.cleaned('country') }}) as country,
        {{ tidemark.cleaned('city') }} as city,
        {{ tidemark.cleaned('address') }} as address,
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
