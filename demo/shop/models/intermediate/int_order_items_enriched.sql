with order_items as (

    select * from {{ ref('stg_order_items') }}

),

orders as (

    select
        order_id,
        order_status,
        is_deleted,
        cancelled_at is not null as is_cancelled,
        loaded_at,
        -- a line of a deleted order keeps nothing of it: the line itself is not marked as deleted yet
        case when not is_deleted then customer_id end as customer_id,
        case when not is_deleted then ordered_at end as ordered_at
    from {{ ref('stg_orders') }}

),

final as (

    select
        -- ids
        order_items.order_item_id,
        order_items.order_id,
        order_items.product_id,
        orders.customer_id,

        -- text
        case
            when orders.order_id is null then 'unknown'
            when orders.is_deleted then 'deleted'
            else orders.order_status
        end as order_status,

        -- numbers: the price and cost at the sale, not today's
        order_items.quantity,
        order_items.unit_price,
        order_items.unit_cost,
        order_items.quantity * order_items.unit_price as gross_revenue,
        order_items.discount,
        order_items.quantity * order_items.unit_price - order_items.discount as revenue,
        order_items.quantity * order_items.unit_cost as cost,
        order_items.quantity * (order_items.unit_price - order_items.unit_cost) - order_items.discount as margin,

        -- booleans: a line of a deleted order is no sale
        coalesce(orders.is_deleted or orders.is_cancelled, false) as is_cancelled,

        -- dates: until its order is loaded, a line counts as sold when it was created
        {{ tidemark.utc('coalesce(orders.ordered_at, order_items.created_at)') }}::date as ordered_on,

        -- timestamps
        coalesce(orders.ordered_at, order_items.created_at) as ordered_at,
        order_items.updated_at,
        greatest(order_items.loaded_at, orders.loaded_at) as loaded_at

    from order_items
    -- left join: a line stays if its order is missing
    left join orders on order_items.order_id = orders.order_id
    where not order_items.is_deleted

)

select * from final
