with source as (

    select * from {{ source('raw', 'customers') }}

),

renamed as (

    select
        -- ids
        customer_id,

        -- text
        lower(trim(email)) as email,
        trim(first_name) as first_name,
        trim(last_name) as last_name,
        nullif(trim(phone), '') as phone,
        upper(trim(country)) as country,
        trim(city) as city,
        trim(address) as address,
        attributes,

        -- booleans
        marketing_opt_in,

        -- timestamps
        created_at,
        updated_at,
        _sdc_batched_at as loaded_at

    from source

)

select * from renamed
