{{
    config(
        materialized='in_place_incremental',
        unique_key='order_id',
        partition_by={'column': 'ordered_on', 'grain': 'month'},
        delete_flag='is_deleted',
    )
}}

{%- set changed %}
    select order_id from {{ ref('stg_orders') }} where loaded_xid >= {{ in_place.horizon() }}
{%- endset %}

with orders as (

    select * from {{ ref('stg_orders') }}
    {% if in_place.is_incremental() %}
        where order_id in (select order_id from {{ in_place.staged_keys(changed) }})
    {% endif %}

),

statuses as (

    select * from {{ ref('statuses') }}

),

final as (

    select
        orders.order_id,
        orders.amount,
        orders.is_deleted,
        statuses.is_final,
        orders.ordered_on
    from orders
    left join statuses on orders.status = statuses.status

)

select * from final
