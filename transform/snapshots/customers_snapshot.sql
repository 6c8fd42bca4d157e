{% snapshot customers_snapshot %}

{{
    config(
        unique_key='customer_id',
        strategy='check',
        check_cols=[
            'email', 'first_name', 'last_name', 'phone', 'country',
            'city', 'address', 'attributes', 'marketing_opt_in', 'is_deleted',
        ],
        updated_at='changed_at',
    )
}}

    select
        customer_id,
        email,
        first_name,
        last_name,
        phone,
        country,
        city,
        address,
        attributes,
        marketing_opt_in,
        is_deleted,
        created_at,
        -- a row that is gone was last changed when that was found
        coalesce(deleted_at, updated_at) as changed_at,
        loaded_xid,
        now() as recorded_at
    from {{ ref('stg_customers') }}
    {% if is_incremental() %}
        where loaded_xid >= {{ horizon() }}
    {% endif %}

{% endsnapshot %}
