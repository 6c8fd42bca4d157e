-- A source with everything that a generator of models trips over. The integration test of onboarding loads it.
create schema "Other Schema";
create type public.mood as enum ('happy', 'so-so', 'it''s {{ bad }}');
create domain public.positive as integer check (value > 0);
create domain public.feeling as public.mood;
create type public.point3 as (x integer, y integer, z integer);

create table public."User" (
    "ID" bigint primary key,
    "userName" text not null,
    "order" integer,
    "select" text,
    "Group" text,
    email varchar(120),
    feels public.mood,
    still public.feeling,
    luck public.positive,
    place public.point3,
    tags text[],
    moods public.mood[],
    is_deleted boolean not null default false,
    deleted_at timestamptz,
    loaded_at timestamp,
    "Naïve Größe" numeric(12, 2),
    "2nd" smallint,
    "user_name" text,
    "名前" text,
    "a.b" text,
    "a ""quote""" text,
    "{{ jinja }} {% x %}" text,
    "back\slash $HOME" text,
    data json,
    raw bytea,
    "name_with_63_bytes_and_Mixed_Case_which_must_be_quoted_in_SQL_x" text,
    boss bigint references public."User",
    updated_at timestamptz not null
);
comment on table public."User" is E'People: "quoted", it''s {{ not_jinja }} {% endif %} {# and #}\n\nWith a \\ and\ttabs: and a long line that goes on and on until it can not possibly fit into one line of any YAML file, really';
comment on column public."User"."ID" is 'The key: # no comment, - no list';
comment on column public."User"."userName" is E'{{ doc(''no_such_block'') }}\nsecond line';
comment on column public."User".email is '100% "sure" \ {{';
comment on column public."User".tags is 'yes';
comment on column public."User"."order" is '123';

create table "Other Schema"."Line Item" (
    "orderId" integer,
    "lineNo" integer,
    "User" bigint not null references public."User",
    "when" date,
    status text check (status in ('new', 'done', 'won''t "do"')),
    amount numeric(12, 2) not null,
    twice numeric(14, 2) generated always as (amount * 2) stored,
    span tstzrange,
    c char(3),
    updated_at timestamptz not null,
    primary key ("orderId", "lineNo")
);
create table "Other Schema".shipments (
    id uuid primary key,
    order_id integer,
    line_no integer,
    weight double precision,
    sent_by bigint references public."User",
    checked_by bigint references public."User",
    foreign key (order_id, line_no) references "Other Schema"."Line Item"
);
create function public.touch() returns trigger language plpgsql as $$
begin
    new.updated_at := now();
    return new;
end
$$;
create trigger touch before update on public."User" for each row execute function public.touch();
create trigger touch before update on "Other Schema"."Line Item" for each row execute function public.touch();
create table public.no_key (a integer, "B" text, at time);
create table public."from" ("to" text primary key, "table" integer unique);
create table public."dotted.name" ("x.y" integer primary key, "from" text references public."from");
create table public.empty_table (id integer primary key);

insert into public."User" (
    "ID", "userName", "order", "Group", email, feels, still, luck, place, tags, moods, "Naïve Größe", "2nd", "名前", "a.b",
    data, raw, boss, updated_at
)
select
    n, 'user ' || n, n, 'g', n || '@example.com', 'happy', 'so-so', n, row(n, n, n)::public.point3, array['a', 'b'],
    array['happy']::public.mood[], n / 7.0, n, '名', 'ab', '{"a": 1}', '\x00', nullif(n - 1, 0), now() - interval '1 day'
from generate_series(1, 40) as n;
update public."User" set feels = 'it''s {{ bad }}' where "ID" = 3;
insert into "Other Schema"."Line Item" ("orderId", "lineNo", "User", "when", status, amount, span, c, updated_at)
select
    n / 3, n % 3, 1 + n % 40, date '2026-01-01' + n, 'won''t "do"', n, '[2026-01-01,2026-01-02)', 'abc',
    now() - interval '1 day'
from generate_series(1, 90) as n;
insert into "Other Schema".shipments
select gen_random_uuid(), n / 3, n % 3, n, 1 + n % 40, null from generate_series(1, 60) as n;
insert into public.no_key values (1, 'b', '12:00'), (1, 'b', '12:00');
insert into public."from" values ('a', 1), ('b', 2);
insert into public."dotted.name" values (1, 'a'), (2, null);
analyze;
