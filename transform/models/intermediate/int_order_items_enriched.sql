-- No WITH in a view: PostgreSQL plans a query on it apart then, and a build of a few changed rows would read all.
select
    -- ids
    order_items.order_item_id,
    order_items.order_id,
    order_items.product_id,
    orders.customer_id,
    {{ surrogate_key('products.product_id') }} as product_key,
    coalesce(orders.customer_key, {{ unknown_key() }}) as customer_key,

    -- text
    -- not joined, as that would read all orders: these are asked for lines whose order isn't there alone
    coalesce(
        orders.order_status,
        (select 'deleted' from {{ ref('stg_orders') }} as gone where gone.order_id = order_items.order_id),
        'unknown'
    ) as order_status,
    products.product_name,
    products.category,

    -- numbers: the price and cost are those of the sale, not today's
    order_items.quantity,
    order_items.unit_price,
    order_items.unit_cost,
    order_items.quantity * order_items.unit_price as gross_revenue,
    order_items.discount,
    order_items.quantity * order_items.unit_price - order_items.discount as revenue,
    order_items.quantity * order_items.unit_cost as cost,
    order_items.quantity * (order_items.unit_price - order_items.unit_cost) - order_items.discount as margin,

    -- booleans: what was deleted with its order, of which the line is yet to be told, is no sale either
    coalesce(
        orders.is_cancelled,
        (select true from {{ ref('stg_orders') }} as gone where gone.order_id = order_items.order_id),
        false
    ) as is_cancelled,

    -- dates: until its order is there, a line was sold when it was made
    coalesce(orders.ordered_on, {{ utc('order_items.created_at') }}::date) as ordered_on,

    -- timestamps
    coalesce(orders.ordered_at, order_items.created_at) as ordered_at,
    order_items.updated_at,
    greatest(order_items.loaded_at, orders.loaded_at) as loaded_at

from {{ ref('stg_order_items') }} as order_items
-- left: a line is never lost for want of its order or its product
left join {{ ref('int_orders_enriched') }} as orders on order_items.order_id = orders.order_id
left join {{ ref('stg_products') }} as products on order_items.product_id = products.product_id
where not order_items.is_deleted
