-- A day's traffic in one transaction. Reads the setting demo.rows: about how many rows to change.
-- Uses random(), so that each day differs; run `select setseed(…)` first to repeat a day.
-- Returns one row per kind of change: table, change, rows.

create temporary table traffic ("table" text, change text, rows bigint) on commit drop;
create temporary table share on commit drop as
select
    greatest(1, demo_rows * 2 / 100) as customers_new,
    greatest(1, demo_rows * 5 / 100) as customers_moved,
    greatest(1, demo_rows * 3 / 100) as prices_changed,
    greatest(1, demo_rows * 15 / 100) as orders_new,
    greatest(1, demo_rows * 35 / 100) as statuses_moved,
    greatest(1, demo_rows / 100) as items_deleted,
    greatest(1, demo_rows / 200) as orders_deleted
from (select current_setting('demo.rows')::integer as demo_rows) as setting;

with added as (
    insert into customers (email, first_name, last_name, phone, country, city, address, marketing_opt_in)
    select
        'new.' || gen_random_uuid() || '@example.com', 'New', 'Customer', null,
        (array['AU', 'CA', 'DE', 'FR', 'GB', 'US'])[1 + floor(random() * 6)::integer],
        'Northgate', '1 First Street', random() < 0.4
    from generate_series(1, (select customers_new from share))
    returning 1
)

insert into traffic select 'customers', 'new', count(*) from added;

with moved as (
    update customers set address = (1 + floor(random() * 250))::text || ' Harbour Road', city = 'Port Linden'
    where customer_id in (
        select customer_id from customers order by random() limit (select customers_moved from share)
    )
    returning 1
)

insert into traffic select 'customers', 'address changed', count(*) from moved;

with changed as (
    update products set price = round(price * (0.9 + 0.2 * random())::numeric, 2)
    where product_id in (
        select product_id from products order by random() limit (select prices_changed from share)
    )
    returning 1
)

insert into traffic select 'products', 'price changed', count(*) from changed;

-- Orders move to their next stage. A cancelled or delivered order does not change.
with chosen as materialized (
    select
        order_id,
        case status
            when 'pending' then case when random() < 0.1 then 'cancelled' else 'paid' end
            when 'paid' then 'shipped'
            else 'delivered'
        end as next_status
    from orders
    where status in ('pending', 'paid', 'shipped')
    order by random() limit (select statuses_moved from share)
),

moved as (
    update orders set
        status = next_status,
        paid_at = case next_status when 'paid' then now() else paid_at end,
        shipped_at = case next_status when 'shipped' then now() else shipped_at end,
        delivered_at = case next_status when 'delivered' then now() else delivered_at end,
        cancelled_at = case next_status when 'cancelled' then now() else cancelled_at end
    from chosen
    where orders.order_id = chosen.order_id
    returning 1
)

insert into traffic select 'orders', 'status moved', count(*) from moved;

create temporary table placed (order_id bigint) on commit drop;
with added as (
    insert into orders (customer_id, status, shipping_fee, ordered_at)
    select customer_id, 'pending', 3.9, now()
    from (
        select customer_id from customers order by random() limit (select orders_new from share)
    ) as buyer
    returning order_id
)

insert into placed select order_id from added;
insert into traffic select 'orders', 'new', count(*) from placed;

with line as materialized (
    select
        placed.order_id,
        1 + floor(random() * (select max(product_id) from products))::bigint as wanted,
        1 + floor(random() * 3)::integer as quantity
    from placed
    cross join generate_series(1, 3) as line_number
    where line_number = 1 or random() < 0.75
),

added as (
    insert into order_items (order_id, product_id, quantity, unit_price, unit_cost)
    select line.order_id, product.product_id, line.quantity, product.price, product.cost
    from line
    cross join lateral (
        select product_id, price, cost from products
        where products.product_id >= line.wanted
        order by products.product_id limit 1
    ) as product
    returning 1
)

insert into traffic select 'order_items', 'new', count(*) from added;

-- Hard deletes: one line of open orders that have another line, and cancelled orders with all their lines.
with deleted as (
    delete from order_items
    where order_item_id in (
        select item.order_item_id from order_items as item
        inner join orders using (order_id)
        where
            orders.status = 'pending'
            and exists (
                select 1 from order_items as earlier
                where earlier.order_id = item.order_id and earlier.order_item_id < item.order_item_id
            )
        order by random() limit (select items_deleted from share)
    )
    returning 1
)

insert into traffic select 'order_items', 'deleted', count(*) from deleted;

create temporary table purged on commit drop as
select order_id from orders where status = 'cancelled' order by random() limit (select orders_deleted from share);
with deleted as (
    delete from order_items where order_id in (select order_id from purged) returning 1
)

insert into traffic select 'order_items', 'deleted with their order', count(*) from deleted;
with deleted as (
    delete from orders where order_id in (select order_id from purged) returning 1
)

insert into traffic select 'orders', 'deleted', count(*) from deleted;

select "table", change, rows from traffic where rows > 0 order by "table", change;
