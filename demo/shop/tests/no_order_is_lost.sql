-- fct_orders has exactly the orders of staging that are not deleted. Leaves out rows loaded since it was built.
select
    staged.order_id as staged,
    built.order_id as built
from (select * from {{ ref('stg_orders') }} where not is_deleted) as staged
full join {{ ref('fct_orders') }} as built on staged.order_id = built.order_id
where
    (staged.order_id is null or built.order_id is null)
    and coalesce(staged.order_id, built.order_id) not in ({{ orders_in_flight(['fct_orders']) }})
