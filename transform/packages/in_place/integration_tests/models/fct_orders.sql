{{ config(materialized='in_place_incremental', unique_key='order_id', delete_flag='is_deleted') }}

with orders as (

    select * from {{ ref('stg_orders') }}
    {% if in_place.is_incremental() %}
        where loaded_xid >= {{ in_place.horizon() }}
    {% else %}
        where not is_deleted
    {% endif %}

),

final as (

    select
        order_id,
        customer_id,
        status,
        amount,
        {% if in_place.is_incremental() %}
            is_deleted,
        {% endif %}
        ordered_on
    from orders

)

select * from final
