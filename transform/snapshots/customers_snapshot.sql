{% snapshot customers_snapshot %}

{{
    config(
        unique_key='customer_id',
        strategy='check',
        check_cols=[
            'email', 'first_name', 'last_name', 'phone', 'country',
            'city', 'address', 'attributes', 'marketing_opt_in', 'is_deleted',
        ],
        indexes=[{'columns': ['customer_id']}, {'columns': ['dbt_scd_id']}, {'columns': ['loaded_xid']}],
    )
}}

{%- set changed %}
    select customer_id from {{ ref('stg_customers') }} where loaded_xid >= {{ in_place.horizon() }}
{%- endset %}

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
        coalesce(deleted_at, updated_at) as changed_at,
        {{ in_place.version_xid() }} as loaded_xid
    from {{ ref('stg_customers') }}
    {% if in_place.snapshot_goes_on() %}
        where customer_id in (select customer_id from {{ in_place.staged_keys(changed) }})
    {% endif %}

{% endsnapshot %}
