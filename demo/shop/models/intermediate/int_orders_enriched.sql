with orders as (

    select * from {{ ref('stg_orders') }}

),

final as (

    select
        -- ids
        order_id,
        customer_id,

        -- text
        order_status,

        -- numbers
        shipping_fee,
        round(extract(epoch from paid_at - ordered_at) / 3600, 2) as hours_to_pay,
        round(extract(epoch from shipped_at - ordered_at) / 86400, 2) as days_to_ship,
        round(extract(epoch from delivered_at - ordered_at) / 86400, 2) as days_to_deliver,

        -- booleans
        cancelled_at is not null as is_cancelled,

        -- dates
        {{ tidemark.utc('ordered_at') }}::date as ordered_on,

        -- timestamps
        ordered_at,
        paid_at,
        shipped_at,
        delivered_at,
        cancelled_at,
        updated_at,
        loaded_at

    from orders
    where not is_deleted

)

select * from final
