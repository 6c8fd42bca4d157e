-- Fills the shop. Reads two settings:
--   demo.scale   1 means 100,000 customers, 10,000 products, 500,000 orders, about 1,250,000 order items
--   demo.as_of   the end of the three years that the stamps are spread over (timestamptz)
-- Each value is a hash of its row's number and a salt, not random(). So the same settings give the same
-- shop on every server, whatever plan the server picks.

-- A uniform number in [0, 1) for row `n`. `salt` distinguishes several draws for one row. 20240229 is the seed.
create function pg_temp.draw(n bigint, salt integer) returns double precision
language sql immutable parallel safe
return (hashint8extended(n, 20240229000 + salt) & 9007199254740991) / 9007199254740992.0::double precision;

create function pg_temp.pick(choices text[], n bigint, salt integer) returns text
language sql immutable parallel safe
return choices[1 + floor(pg_temp.draw(n, salt) * cardinality(choices))::integer];

insert into products overriding system value
select
    n,
    'SKU-' || lpad(n::text, 7, '0'),
    pg_temp.pick('{Basic,Classic,Compact,Deluxe,Everyday,Light,Modern,Pro,Rugged,Smart}', n, 1)
    || ' ' || noun || ' ' || n,
    category,
    price,
    round(price * (0.35 + 0.4 * pg_temp.draw(n, 4))::numeric, 2),
    case
        when pg_temp.draw(n, 5) < 0.2 then '{}'::text[]
        else array[
            pg_temp.pick('{new,sale,eco,gift}', n, 6),
            pg_temp.pick('{bestseller,clearance,imported,seasonal}', n, 7)
        ]
    end,
    jsonb_build_object(
        'color', pg_temp.pick('{black,blue,green,grey,red,white}', n, 8),
        'weight_g', 50 + floor(pg_temp.draw(n, 9) * 5000)
    ),
    pg_temp.draw(n, 10) >= 0.03,
    created_at,
    -- half of them got a new price later
    case
        when pg_temp.draw(n, 12) < 0.5
            then created_at + (current_setting('demo.as_of')::timestamptz - created_at) * pg_temp.draw(n, 13)
        else created_at
    end
from (
    select
        n,
        (array['Books', 'Clothing', 'Electronics', 'Garden', 'Home', 'Sports', 'Toys'])[kind] as category,
        (array['Notebook', 'Jacket', 'Speaker', 'Planter', 'Lamp', 'Racket', 'Puzzle'])[kind] as noun,
        -- prices between 2.50 and about 400, most of them low
        round((2.5 + 400 * power(pg_temp.draw(n, 3), 3))::numeric, 2) as price,
        current_setting('demo.as_of')::timestamptz
        - interval '1095 days' * (0.9 + 0.1 * pg_temp.draw(n, 11)) as created_at
    from generate_series(1, greatest(10, (10000 * current_setting('demo.scale')::numeric)::bigint)) as n,
        lateral (select 1 + floor(pg_temp.draw(n, 2) * 7)::integer as kind) as drawn
) as product;

insert into customers overriding system value
select
    n,
    case when pg_temp.draw(n, 20) < 0.03 then ' ' || initcap(email) else email end,
    first_name,
    last_name,
    case when pg_temp.draw(n, 23) >= 0.2 then '+' || (10000000000 + (pg_temp.draw(n, 24) * 89999999999)::bigint) end,
    -- one in fifty wrote the country code in lower case, so that staging has something to clean
    case when pg_temp.draw(n, 25) < 0.02 then lower(country) else country end,
    pg_temp.pick('{Ashford,Bellmont,Clearwater,Dunmore,Eastvale,Fairview,Greenfield,Highbury}', n, 27),
    (1 + floor(pg_temp.draw(n, 28) * 250))::text || ' '
    || pg_temp.pick('{Birch,Cedar,Elm,Maple,Oak,Pine}', n, 29) || ' Street',
    pg_temp.draw(n, 30) < 0.4,
    jsonb_build_object('language', pg_temp.pick('{de,en,es,fr,it,ja}', n, 31), 'newsletter', pg_temp.draw(n, 32) < 0.5),
    created_at,
    -- one in five changed something after signing up
    case
        when pg_temp.draw(n, 33) < 0.2
            then created_at + (current_setting('demo.as_of')::timestamptz - created_at) * pg_temp.draw(n, 34)
        else created_at
    end
from (
    select
        n,
        first_name,
        last_name,
        lower(first_name) || '.' || lower(last_name) || '.' || n || '@example.com' as email,
        pg_temp.pick('{AU,BR,CA,DE,ES,FR,GB,IT,JP,NL,PL,US,US,US}', n, 26) as country,
        current_setting('demo.as_of')::timestamptz - interval '1095 days' * pg_temp.draw(n, 35) as created_at
    from generate_series(1, greatest(10, (100000 * current_setting('demo.scale')::numeric)::bigint)) as n,
        lateral (
            select
                pg_temp.pick('{Ada,Ben,Chloe,David,Elena,Felix,Grace,Hugo,Iris,Jonas,Kira,Liam,Mina,Noah}', n, 21)
                    as first_name,
                pg_temp.pick('{Adams,Brandt,Costa,Dubois,Evans,Fischer,Garcia,Hansen,Ito,Jensen,Kowalski,Lopez}', n, 22)
                    as last_name
        ) as person
) as customer;

-- `orders` below looks up customers by number; 3_constraints.sql adds the real key.
create index demo_customer on customers (customer_id);
analyze customers, products;

insert into orders overriding system value
select
    row_number() over (order by ordered_at, n),
    customer_id,
    case
        when cancelled_at is not null then 'cancelled'
        when delivered_at is not null then 'delivered'
        when shipped_at is not null then 'shipped'
        when paid_at is not null then 'paid'
        else 'pending'
    end,
    shipping_fee,
    ordered_at,
    paid_at,
    shipped_at,
    delivered_at,
    cancelled_at,
    ordered_at as created_at,
    coalesce(cancelled_at, delivered_at, shipped_at, paid_at, ordered_at)
from (
    select
        n,
        customer_id,
        (array[0, 3.9, 4.9, 9.9])[1 + floor(pg_temp.draw(n, 44) * 4)::integer] as shipping_fee,
        ordered_at,
        -- a stage after as_of has not been reached yet
        case when not is_cancelled and pays < as_of then pays end as paid_at,
        case when not is_cancelled and ships < as_of then ships end as shipped_at,
        case when not is_cancelled and arrives < as_of then arrives end as delivered_at,
        case when is_cancelled then cancels end as cancelled_at
    from (
        select
            n,
            customer.customer_id,
            as_of,
            ordered_at,
            ordered_at + interval '1 minute' + interval '3 hours' * pg_temp.draw(n, 45) as pays,
            ordered_at + interval '6 hours' + interval '3 days' * pg_temp.draw(n, 46) as ships,
            ordered_at + interval '4 days' + interval '7 days' * pg_temp.draw(n, 47) as arrives,
            ordered_at + interval '1 day' * pg_temp.draw(n, 48) as cancels,
            pg_temp.draw(n, 49) < 0.05 and ordered_at + interval '1 day' < as_of as is_cancelled
        from generate_series(1, greatest(50, (500000 * current_setting('demo.scale')::numeric)::bigint)) as n
        inner join customers as customer
            -- the square makes some customers buy far more often than others
            on customer.customer_id = 1 + floor(
                power(pg_temp.draw(n, 41), 2)
                * greatest(10, (100000 * current_setting('demo.scale')::numeric)::bigint)
            )::bigint
        cross join lateral (select current_setting('demo.as_of')::timestamptz as as_of) as ends
        cross join lateral (
            select customer.created_at + (as_of - customer.created_at) * pg_temp.draw(n, 42) as ordered_at
        ) as chosen
    ) as planned
) as placed;

insert into order_items overriding system value
select
    row_number() over (order by placed.order_id, line),
    placed.order_id,
    product.product_id,
    quantity,
    product.price,
    product.cost,
    case
        when pg_temp.draw(n, 54) < 0.15
            then round(product.price * quantity * (0.05 + 0.2 * pg_temp.draw(n, 55))::numeric, 2)
        else 0
    end,
    placed.ordered_at as created_at,
    placed.ordered_at as updated_at
from orders as placed
cross join lateral generate_series(1, 1 + floor(pg_temp.draw(placed.order_id, 51) * 4)::bigint) as line
cross join lateral (select placed.order_id * 8 + line as n) as numbered
cross join lateral (select 1 + floor(4 * power(pg_temp.draw(n, 53), 2))::integer as quantity) as bought
inner join products as product
    on product.product_id = 1 + floor(
        power(pg_temp.draw(n, 52), 1.5)
        * greatest(10, (10000 * current_setting('demo.scale')::numeric)::bigint)
    )::bigint;

drop index demo_customer;
