{% snapshot customers_snapshot %}

{{
    config(
        unique_key='customer_id',
        strategy='check',
        check_cols=[
            'email', 'first_name', 'last_name', 'phone', 'country',
            'city', 'address', 'attributes', 'marketing_opt_in', 'is_deleted',
        ],
        indexes=[{'columns': ['customer_id']}, {'columns': ['dbt_scd_id']}],
        changed_by=[{'model': 'stg_customers', 'key': 'customer_id'}],
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
        -- a deleted row was last changed when the loader found it deleted
        coalesce(deleted_at, updated_at) as changed_at
    from {{ ref('stg_customers') }}

{% endsnapshot %}
