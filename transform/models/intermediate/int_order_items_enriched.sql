-- No WITH in a view: PostgreSQL would plan it separately, and a build of a few changed rows would read all rows.
select
    -- ids
    order_items.order_item_id,
    order_items.order_id,
    order_items.product_id,
    orders.customer_id,
    {{ surrogate_key('products.product_id') }} as product_key,
    coalesce(orders.customer_key, {{ unknown_key() }}) as customer_key,

    -- text
    -- subqueries, because a join would read all orders; PostgreSQL runs them only for lines without an order
    coalesce(
        orders.order_status,
        (select 'deleted' from {{ ref('stg_orders') }} as gone where gone.order_id = order_items.order_id),
        'unknown'
    ) as order_status,
    products.product_name,
    products.category,

    -- numbers: the price and cost at the sale, not today's
    order_items.quantity,
    order_items.unit_price,
    order_items.unit_cost,
    order_items.quantity * order_items.unit_price as gross_revenue,
    order_items.discount,
    order_items.quantity * order_items.unit_price - order_items.discount as revenue,
    order_items.quantity * order_items.unit_cost as cost,
    order_items.quantity * (order_items.unit_price - order_items.unit_cost) - order_items.discount as margin,

    -- booleans: if the order was deleted and the line is not marked as deleted yet, the line is not a sale either
    coalesce(
        orders.is_cancelled,
        (select true from {{ ref('stg_orders') }} as gone where gone.order_id = order_items.order_id),
        false
    ) as is_cancelled,

    -- dates: until its order is loaded, a line counts as sold when it was created
    coalesce(orders.ordered_on, {{ utc('order_items.created_at') }}::date) as ordered_on,

    -- timestamps
    coalesce(orders.ordered_at, order_items.created_at) as ordered_at,
    order_items.updated_at,
    greatest(order_items.loaded_at, orders.loaded_at) as loaded_at

from {{ ref('stg_order_items') }} as order_items
-- left join: a line stays if its order or its product is missing
left join {{ ref('int_orders_enriched') }} as orders on order_items.order_id = orders.order_id
left join {{ ref('stg_products') }} as products on order_items.product_id = products.product_id
where not order_items.is_deleted
