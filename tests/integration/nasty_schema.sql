-- A source with all that onboarding must get right: names, kinds of tables, triggers, types, rights, personal data.
create schema hr;
create schema "Sales Ops";
create schema vault;

create type public.mood as enum ('sad', 'ok', 'it''s "fine"');
create domain public.feeling as public.mood default 'ok';
create domain public.feelings as public.feeling[];
create domain public.rating as text check (value in ('G', 'PG', 'R'));
create domain public.short as varchar(20);
create domain public.shorter as public.short check (length(value) < 9);
create type public.place as (street text, city text);
create type public.span as range (subtype = float8);

create function public.touch() returns trigger language plpgsql as
$$ begin new.updated_at := now(); return new; end $$;
create function public.touch_maybe() returns trigger language plpgsql as
$$ begin if new.a is distinct from old.a then new.updated_at = current_timestamp; end if; return new; end $$;
create function public.touch_utc() returns trigger language plpgsql as
$$ begin /* a comment; */ NEW."Modified Date" = timezone('utc'::text, now()); return new; end $$;

create table customer (
    customer_id int generated always as identity primary key, first_name text, last_name text not null,
    email text unique not null, phone text, birth_date date, search tsvector,
    shout text generated always as (upper(last_name)) stored, picture bytea, mood mood not null default 'ok', f feeling,
    fs feelings, rated rating, s shorter, home place, spans span[], contact text,
    updated_at timestamptz not null default now()
);
comment on table customer is 'People';
comment on column customer.email is 'as written';
create trigger t before update on customer for each row execute function touch();
create table "Order" (
    "Order ID" int primary key, customer_email text references customer (email), "select" int,
    status varchar(10) check (status in ('open', 'shipped')), order_date timestamp not null,
    updated_at timestamptz not null default now()
);
create table hr.customer (id int primary key, name text, updated_at timestamptz not null);
create trigger t before update on hr.customer for each row when (old.* is distinct from new.*) execute function touch();
create table hr.maybe (id int primary key, a int, updated_at timestamptz not null default now());
create trigger t before update on hr.maybe for each row execute function touch_maybe();
create table hr.some_columns (id int primary key, a int, updated_at timestamptz not null default now());
create trigger t before update of a on hr.some_columns for each row execute function touch();
create table "Sales Ops"."Customer" (
    a int, b int, "Modified Date" timestamp not null default (now() at time zone 'utc'), primary key (a, b)
);
create trigger t before update on "Sales Ops"."Customer" for each row execute function touch_utc();
create table disabled (id int primary key, updated_at timestamptz not null default now());
create trigger t before update on disabled for each row execute function touch();
alter table disabled disable trigger t;
create table after_update (id int primary key, updated_at timestamptz not null default now());
create trigger t after update on after_update for each row execute function touch();
create table nullable (id int primary key, updated_at timestamptz);
create trigger t before update on nullable for each row execute function touch();

create table no_key (a int, b text, updated_at timestamptz not null);
create trigger t before update on no_key for each row execute function touch();
create table by_index (a int not null, b text not null, updated_at timestamptz not null default now());
create unique index on by_index (a, b);
create unique index on by_index (a) where b = 'x';
create trigger t before update on by_index for each row execute function touch();
create table nearly (a int unique, b text);

create table parted (id bigint, at timestamptz not null, v numeric, updated_at timestamptz not null default now(),
    primary key (id, at)) partition by range (at);
create table parted_1 partition of parted for values from ('2020-01-01') to ('2021-01-01');
create table parted_2 partition of parted for values from ('2021-01-01') to ('2022-01-01') partition by hash (id);
create table parted_2_1 partition of parted_2 for values with (modulus 1, remainder 0);
create trigger t before update on parted for each row execute function touch();
create table of_parted (id int primary key, parted_id bigint, parted_at timestamptz,
    foreign key (parted_id, parted_at) references parted);

create table parent (id int primary key, updated_at timestamptz not null default now());
create trigger t before update on parent for each row execute function touch();
create table child (extra text, primary key (id)) inherits (parent);

create table secret (id int primary key, ssn text);
alter table secret enable row level security;
create table closed (id int primary key);
create table some_closed (id int primary key, open text, shut text);
create table vault.gold (id int primary key);
create table _tidemark_x (id int primary key);
create table odd (id int primary key, _sdc_sequence int, _tidemark_loaded_xid int, "we ird" text, "a.b" text);
create table no_columns ();
create table empty (id int primary key, t text);
create table email_template (email_template_id int primary key, name text, rental_rate numeric, phone_model text);

create view customer_view as select * from customer;
create materialized view totals as select count(*) from customer;
create foreign data wrapper nothing;
create server elsewhere foreign data wrapper nothing;
create foreign table remote (id int, v text) server elsewhere;

create role onboarder login password 'secret';
grant usage on schema public, hr, "Sales Ops" to onboarder;
grant select on all tables in schema public, hr, "Sales Ops" to onboarder;
revoke all on closed, some_closed from onboarder;
grant select (id, open) on some_closed to onboarder;
grant select on vault.gold to onboarder;

insert into customer (first_name, last_name, email, contact)
select 'first' || i, 'last' || i, 'secret.' || i || '@example.com', 'other.' || i || '@example.com'
from generate_series(1, 300) i;
analyze;
