{{
    config(
        unique_key='order_id',
        delete_flag='is_gone',
        moved_keys=['customer_id'],
        indexes=[{'columns': ['customer_id']}],
        partial_indexes=[{'columns': ['customer_id'], 'where': 'customer_key = ' ~ unknown_key()}],
    )
}}

{%- set changed %}
    select order_id from {{ ref('stg_orders') }}
    where loaded_xid >= {{ in_place.horizon() }}
    union
    -- one of its lines was loaded, was marked as deleted, or moved to another order
    select order_id from {{ ref('stg_order_items') }}
    where loaded_xid >= {{ in_place.horizon() }}
    union
    {{ in_place.moved_keys(ref('fct_sales'), 'order_id') }}
    union
    -- its customer was missing and is loaded now
    select order_id from {{ this }}
    where
        customer_key = {{ unknown_key() }}
        and customer_id in (select customer_id from {{ ref('stg_customers') }} where loaded_xid >= {{ in_place.horizon() }})
{%- endset %}

with orders as (

    select * from {{ ref('int_orders_enriched') }}

),

sales as (

    select * from {{ ref('fct_sales') }}

),

{% if in_place.is_incremental() %}

    changed as (

        select order_id from {{ in_place.staged_keys(changed) }}

    ),

{% endif %}

order_totals as (

    select
        order_id,
        count(*)::integer as line_count,
        sum(quantity)::integer as units,
        sum(gross_revenue) as gross_revenue,
        sum(discount) as discount,
        sum(revenue) as revenue,
        sum(cost) as cost,
        sum(margin) as margin,
        max(loaded_at) as loaded_at
    from sales
    {% if in_place.is_incremental() %}
        where order_id in (select order_id from changed)
    {% endif %}
    group by order_id

),

final as (

    select
        -- ids
        {{ 'changed' if in_place.is_incremental() else 'orders' }}.order_id,
        orders.customer_id,
        orders.customer_key,

        -- text
        orders.order_status,

        -- numbers
        coalesce(order_totals.line_count, 0) as line_count,
        coalesce(order_totals.units, 0) as units,
        coalesce(order_totals.gross_revenue, 0) as gross_revenue,
        coalesce(order_totals.discount, 0) as discount,
        coalesce(order_totals.revenue, 0) as revenue,
        coalesce(order_totals.cost, 0) as cost,
        coalesce(order_totals.margin, 0) as margin,
        orders.shipping_fee,
        coalesce(order_totals.revenue, 0) + orders.shipping_fee as order_total,
        orders.hours_to_pay,
        orders.days_to_ship,
        orders.days_to_deliver,

        -- booleans
        orders.is_cancelled,
        {% if in_place.is_incremental() %}
            orders.order_id is null as is_gone,
        {% endif %}

        -- dates
        orders.ordered_on,

        -- timestamps
        orders.ordered_at,
        orders.paid_at,
        orders.shipped_at,
        orders.delivered_at,
        orders.cancelled_at,
        greatest(orders.loaded_at, order_totals.loaded_at) as loaded_at

    {% if in_place.is_incremental() %}
        from changed
        left join orders on changed.order_id = orders.order_id
    {% else %}
        from orders
    {% endif %}
    left join order_totals on orders.order_id = order_totals.order_id

)

select * from final
