-- fct_sales has exactly the lines of staging that are not deleted. Leaves out rows loaded since it was built.
select
    staged.order_item_id as staged,
    sold.order_item_id as sold
from (select * from {{ ref('stg_order_items') }} where not is_deleted) as staged
full join {{ ref('fct_sales') }} as sold on staged.order_item_id = sold.order_item_id
where
    (staged.order_item_id is null or sold.order_item_id is null)
    and coalesce(staged.order_item_id, sold.order_item_id) not in (
        select order_item_id from {{ ref('stg_order_items') }}
        where loaded_xid >= {{ tidemark.built_until(['fct_sales']) }}
    )
