-- At the time of each sale, exactly one version of its customer is valid. Leaves out rows loaded after
-- either table was built.
select
    sales.order_item_id,
    count(history.version) as versions
from {{ ref('fct_sales') }} as sales
left join {{ ref('dim_customers_history') }} as history
    on
        sales.customer_id = history.customer_id
        and sales.ordered_at >= history.valid_from
        and sales.ordered_at < coalesce(history.valid_to, 'infinity')
where
    sales.customer_key != {{ tidemark.unknown_key() }}
    and sales.order_id not in ({{ orders_in_flight(['fct_sales', 'dim_customers_history']) }})
    and sales.customer_id not in (
        select customer_id from {{ ref('stg_customers') }}
        where loaded_xid >= {{ tidemark.built_until(['fct_sales', 'dim_customers_history']) }}
    )
group by sales.order_item_id
having count(history.version) != 1
