{{ config(unique_key='customer_key') }}

{%- set changed %}
    select customer_id from {{ ref('stg_customers') }}
    where loaded_xid >= {{ in_place.horizon() }}
    union
    -- one of their orders changed, or a line of it did, or an order moved away from them
    select customer_id from {{ ref('stg_orders') }}
    where loaded_xid >= {{ in_place.horizon() }}
    union
    select customer_id from {{ ref('stg_orders') }}
    where order_id in (
        select order_id from {{ ref('stg_order_items') }} where loaded_xid >= {{ in_place.horizon() }}
        union all
        {{ in_place.moved_keys(ref('fct_sales'), 'order_id') }}
    )
    union
    {{ in_place.moved_keys(ref('fct_orders'), 'customer_id') }}
{%- endset %}

with orders as (

    select * from {{ ref('fct_orders') }}

),

{% if in_place.is_incremental() %}

    changed as (

        select customer_id from {{ in_place.staged_keys(changed) }}

    ),

{% endif %}

customers as (

    select * from {{ ref('stg_customers') }}
    {% if in_place.is_incremental() %}
        -- an array: otherwise PostgreSQL makes this a join and reads all customers for a few
        where customer_id = any(array(select customer_id from changed))
    {% endif %}

),

customer_orders as (

    select
        customer_id,
        count(*)::integer as order_count,
        sum(revenue) as lifetime_revenue,
        sum(margin) as lifetime_margin,
        min(ordered_on) as first_ordered_on,
        max(ordered_on) as last_ordered_on
    from orders
    where
        not is_cancelled
        {% if in_place.is_incremental() %}
            and customer_id in (select customer_id from changed)
        {% endif %}
    group by customer_id

),

known as (

    select
        -- ids
        {{ surrogate_key('customers.customer_id') }} as customer_key,
        customers.customer_id,

        -- text
        customers.email,
        customers.first_name,
        customers.last_name,
        customers.phone,
        customers.country,
        customers.city,
        {{ customer_segment('customer_orders.order_count', 'customer_orders.lifetime_revenue') }} as segment,

        -- numbers
        coalesce(customer_orders.order_count, 0) as order_count,
        coalesce(customer_orders.lifetime_revenue, 0) as lifetime_revenue,
        coalesce(customer_orders.lifetime_margin, 0) as lifetime_margin,

        -- booleans
        customers.marketing_opt_in,
        customers.is_deleted,

        -- dates
        customer_orders.first_ordered_on,
        customer_orders.last_ordered_on,

        -- timestamps
        customers.created_at,
        customers.updated_at,
        customers.loaded_at

    from customers
    left join customer_orders on customers.customer_id = customer_orders.customer_id

),

final as (

    select * from known
    union all
    -- the unknown member, for facts without a customer
    select
        {{ unknown_key() }}, null, null, 'Unknown', 'Unknown', null, null, null,
        'unknown', 0, 0, 0, null, false, null, null, null, null, null

)

select * from final
