{{
    config(
        unique_key='order_item_id',
        partition_by={'column': 'ordered_on', 'grain': 'month'},
        delete_flag='is_gone',
        moved_keys=['order_id'],
        indexes=[{'columns': ['order_id']}],
        partial_indexes=[
            {'columns': ['product_id'], 'where': 'product_key = ' ~ unknown_key()},
            {'columns': ['customer_id'], 'where': 'customer_key = ' ~ unknown_key()},
        ],
    )
}}

{%- set changed %}
    -- the line itself was loaded, or marked as deleted
    select order_item_id from {{ ref('stg_order_items') }}
    where loaded_xid >= {{ in_place.horizon() }}
    union
    -- its order changed and the line did not
    select order_item_id from {{ this }}
    where order_id in (select order_id from {{ ref('stg_orders') }} where loaded_xid >= {{ in_place.horizon() }})
    union
    -- its product or its customer was missing and is loaded now
    select order_item_id from {{ this }}
    where
        product_key = {{ unknown_key() }}
        and product_id in (select product_id from {{ ref('stg_products') }} where loaded_xid >= {{ in_place.horizon() }})
    union
    select order_item_id from {{ this }}
    where
        customer_key = {{ unknown_key() }}
        and customer_id in (select customer_id from {{ ref('stg_customers') }} where loaded_xid >= {{ in_place.horizon() }})
{%- endset %}

with sales as (

    select * from {{ ref('int_order_items_enriched') }}

),

{% if in_place.is_incremental() %}

    changed as (

        select order_item_id from {{ in_place.staged_keys(changed) }}

    ),

{% endif %}

final as (

    select
        -- ids
        {{ 'changed' if in_place.is_incremental() else 'sales' }}.order_item_id,
        sales.order_id,
        sales.product_id,
        sales.customer_id,
        sales.product_key,
        sales.customer_key,

        -- text
        sales.order_status,

        -- numbers
        sales.quantity,
        sales.unit_price,
        sales.unit_cost,
        sales.gross_revenue,
        sales.discount,
        sales.revenue,
        sales.cost,
        sales.margin,

        -- booleans
        sales.is_cancelled,
        {% if in_place.is_incremental() %}
            sales.order_item_id is null as is_gone,
        {% endif %}

        -- dates
        sales.ordered_on,

        -- timestamps
        sales.ordered_at,
        sales.loaded_at

    {% if in_place.is_incremental() %}
        from changed
        left join sales on changed.order_item_id = sales.order_item_id
    {% else %}
        from sales
    {% endif %}

)

select * from final
