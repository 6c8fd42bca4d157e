-- A video rental shop: stamps kept by a trigger, partitions, an enum, a domain, tsvector, views, a bytea.
create type rating as enum ('G', 'PG', 'PG-13', 'R');
create domain release_year as integer check (value between 1901 and 2155);

create function touch() returns trigger language plpgsql as $$
begin
    new.last_update = current_timestamp;
    return new;
end $$;

create table language (
    language_id int generated always as identity primary key,
    name character(20) not null,
    last_update timestamptz not null default now()
);
create table actor (
    actor_id int generated always as identity primary key,
    first_name text not null,
    last_name text not null,
    last_update timestamptz not null default now()
);
create table film (
    film_id int generated always as identity primary key,
    title text not null,
    description text,
    release_year release_year,
    language_id int not null references language,
    original_language_id int references language,
    rental_duration smallint not null default 3,
    rental_rate numeric(4, 2) not null default 4.99,
    length smallint,
    rating rating default 'G',
    special_features text[],
    fulltext tsvector generated always as (to_tsvector('simple', title)) stored,
    last_update timestamptz not null default now()
);
comment on table film is 'A film, and not a copy of it.';
comment on column film.rental_rate is 'Dollars for `rental_duration` days; "list price".';
create table film_actor (
    actor_id int not null references actor,
    film_id int not null references film,
    last_update timestamptz not null default now(),
    primary key (actor_id, film_id)
);
create table address (
    address_id int generated always as identity primary key,
    address text not null,
    phone text not null,
    last_update timestamptz not null default now()
);
create table customer (
    customer_id int generated always as identity primary key,
    first_name text not null,
    last_name text not null,
    email text,
    address_id int not null references address,
    activebool boolean not null default true,
    create_date date not null default current_date,
    last_update timestamptz default now()
);
create table staff (
    staff_id int generated always as identity primary key,
    first_name text not null,
    username text not null unique,
    password text,
    picture bytea,
    last_update timestamptz not null default now()
);
create table inventory (
    inventory_id int generated always as identity primary key,
    film_id int not null references film,
    last_update timestamptz not null default now()
);
create table rental (
    rental_id int generated always as identity primary key,
    rental_date timestamptz not null,
    inventory_id int not null references inventory,
    customer_id int not null references customer,
    return_date timestamptz,
    staff_id int not null references staff,
    last_update timestamptz not null default now(),
    unique (rental_date, inventory_id, customer_id)
);
create table payment (
    payment_id int generated always as identity,
    customer_id int not null references customer,
    rental_id int not null references rental,
    amount numeric(5, 2) not null,
    payment_date timestamptz not null,
    primary key (payment_date, payment_id)
) partition by range (payment_date);
create table payment_2026_01 partition of payment for values from ('2026-01-01') to ('2026-02-01');
create table payment_2026_02 partition of payment for values from ('2026-02-01') to ('2026-03-01');

do $$
declare each text;
begin
    foreach each in array array['language', 'actor', 'film', 'film_actor', 'address', 'customer', 'staff', 'inventory',
        'rental']
    loop
        execute format('create trigger last_updated before update on %I for each row execute function touch()', each);
    end loop;
end $$;

create view film_list as select film_id, title, rating from film;
create materialized view rental_count as select customer_id, count(*) as rentals from rental group by customer_id;

insert into language (name) values ('English'), ('Italian');
insert into actor (first_name, last_name) select 'First ' || n, 'Last ' || n from generate_series(1, 60) n;
insert into film (title, release_year, language_id, rating, special_features, length)
select 'Film ' || n, 1950 + n % 70, 1 + n % 2, (enum_range(null::rating))[1 + n % 4], array['Trailer', 'a, "b"'], n % 180
from generate_series(1, 200) n;
insert into film_actor select 1 + n % 60, n from generate_series(1, 200) n;
insert into address (address, phone) select n || ' Some Street', '+49 30 ' || 100000 + n from generate_series(1, 90) n;
insert into customer (first_name, last_name, email, address_id)
select 'First ' || n, 'Last ' || n, 'c' || n || '@example.com', n from generate_series(1, 90) n;
insert into staff (first_name, username, password, picture)
values ('Jo', 'jo', 'x', '\x00ff01'), ('Mo', 'mo', null, null);
insert into inventory (film_id) select 1 + n % 200 from generate_series(1, 400) n;
insert into rental (rental_date, inventory_id, customer_id, return_date, staff_id)
select '2026-01-01'::timestamptz + n * interval '1 hour', 1 + n % 400, 1 + n % 90,
    case when n % 5 > 0 then '2026-01-04'::timestamptz + n * interval '1 hour' end, 1 + n % 2
from generate_series(1, 1000) n;
insert into payment (customer_id, rental_id, amount, payment_date)
select 1 + n % 90, n, n % 12 + 0.99, '2026-01-01'::timestamptz + n * interval '1 hour' from generate_series(1, 1000) n;
analyze;
