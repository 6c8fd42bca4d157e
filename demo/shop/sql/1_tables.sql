-- The shop's tables, without keys, indexes and triggers. 3_constraints.sql adds those after the rows:
-- building an index once is several times cheaper than updating it row by row,
-- and a trigger that stamps now() would erase three years of history.

create table customers (
    customer_id bigint generated always as identity,
    email text not null,
    first_name text not null,
    last_name text not null,
    phone text,
    country text not null,
    city text not null,
    address text not null,
    marketing_opt_in boolean not null,
    attributes jsonb not null default '{}',
    created_at timestamptz not null,
    updated_at timestamptz not null
);

create table products (
    product_id bigint generated always as identity,
    sku text not null,
    name text not null,
    category text not null,
    price numeric(12, 2) not null,
    cost numeric(12, 2) not null,
    tags text[] not null default '{}',
    attributes jsonb not null default '{}',
    is_active boolean not null default true,
    created_at timestamptz not null,
    updated_at timestamptz not null
);

create table orders (
    order_id bigint generated always as identity,
    customer_id bigint not null,
    status text not null,
    shipping_fee numeric(12, 2) not null,
    ordered_at timestamptz not null,
    paid_at timestamptz,
    shipped_at timestamptz,
    delivered_at timestamptz,
    cancelled_at timestamptz,
    created_at timestamptz not null,
    updated_at timestamptz not null
);

create table order_items (
    order_item_id bigint generated always as identity,
    order_id bigint not null,
    product_id bigint not null,
    quantity integer not null,
    unit_price numeric(12, 2) not null,
    unit_cost numeric(12, 2) not null,
    discount numeric(12, 2) not null default 0,
    created_at timestamptz not null,
    updated_at timestamptz not null
);
