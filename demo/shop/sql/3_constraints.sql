-- Turns the tables into an application's: keys, checks, the index that every incremental load needs, and the
-- trigger that sets both stamps.

alter table customers
add primary key (customer_id),
add unique (email),
add check (country ~ '^[A-Za-z]{2}$');

alter table products
add primary key (product_id),
add unique (sku),
add check (category in ('Books', 'Clothing', 'Electronics', 'Garden', 'Home', 'Sports', 'Toys')),
add check (price >= 0),
add check (cost >= 0);

alter table orders
add primary key (order_id),
add foreign key (customer_id) references customers,
add check (status in ('pending', 'paid', 'shipped', 'delivered', 'cancelled')),
add check (shipping_fee >= 0),
add check ((status = 'cancelled') = (cancelled_at is not null));

alter table order_items
add primary key (order_item_id),
add foreign key (order_id) references orders,
add foreign key (product_id) references products,
add check (quantity > 0),
add check (unit_price >= 0),
add check (unit_cost >= 0),
add check (discount between 0 and unit_price * quantity);

create index on customers (updated_at);
create index on products (updated_at);
create index on orders (updated_at);
create index on order_items (updated_at);
create index on orders (customer_id);
create index on order_items (order_id);
create index on order_items (product_id);

select setval(pg_get_serial_sequence('customers', 'customer_id'), max(customer_id)) from customers;
select setval(pg_get_serial_sequence('products', 'product_id'), max(product_id)) from products;
select setval(pg_get_serial_sequence('orders', 'order_id'), max(order_id)) from orders;
select setval(pg_get_serial_sequence('order_items', 'order_item_id'), max(order_item_id)) from order_items;

create function stamp_row() returns trigger
language plpgsql as $$
begin
    if tg_op = 'INSERT' then
        new.created_at := now();
    else
        new.created_at := old.created_at;
    end if;
    new.updated_at := now();
    return new;
end
$$;

create trigger stamp_row before insert or update on customers
for each row execute function stamp_row();
create trigger stamp_row before insert or update on products
for each row execute function stamp_row();
create trigger stamp_row before insert or update on orders
for each row execute function stamp_row();
create trigger stamp_row before insert or update on order_items
for each row execute function stamp_row();

analyze customers, products, orders, order_items;
