-- Every line that was loaded is in fct_sales, and nothing else is.
select
    staged.order_item_id as staged,
    sold.order_item_id as sold
from {{ ref('stg_order_items') }} as staged
full join {{ ref('fct_sales') }} as sold on staged.order_item_id = sold.order_item_id
where staged.order_item_id is null or sold.order_item_id is null
