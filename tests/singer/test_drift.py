"""Schema changes of a source table between two runs: applied without losing a value, or refused by name."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from psycopg import sql

from singer_postgres.core.errors import SingerPostgresError
from singer_postgres.core.warehouse import dependent_views
from tests.singer.conftest import FULL_TABLE, INCREMENTAL

if TYPE_CHECKING:
    from tests.singer.conftest import Pipe, Synced

STREAMS = {"public-orders": INCREMENTAL}
ORDERS = """
    create table orders (
        id int primary key, note varchar(10), amount numeric(8,2) not null,
        updated_at timestamptz not null default now()
    );
    insert into orders select n, 'note ' || n, n, now() - interval '1 day' from generate_series(1, 3) n;
"""
OTHERS = """
    create table others (id int primary key, updated_at timestamptz default now());
    insert into others values (1);
"""


@pytest.fixture
def loaded(pipe: Pipe) -> Pipe:
    pipe.do(ORDERS)
    pipe.state = pipe.sync(STREAMS).ok().state
    return pipe


def again(pipe: Pipe, statements: str) -> Synced:
    pipe.do(statements)
    synced = pipe.sync(STREAMS, pipe.state)
    pipe.state = synced.state or pipe.state
    return synced


def changes(pipe: Pipe) -> list[tuple]:
    return pipe.rows("select change, column_name, was, becomes from raw._tidemark_schema_changes order by id")


def assert_same(pipe: Pipe, columns: str) -> None:
    with pipe.source() as connection:
        there = connection.execute(f"select row({columns})::text from orders order by id").fetchall()
    assert pipe.rows(f"select row({columns})::text from raw.orders order by id") == there


@pytest.mark.parametrize(
    "column",
    ["text", "text default 'from before'", "int[] not null default '{1,2}'", "uuid not null default gen_random_uuid()"],
)
def test_an_added_column_is_loaded_with_the_values_of_old_rows(loaded, column):
    again(loaded, f"alter table orders add added {column}").ok()
    assert_same(loaded, "id, added")
    assert [change[:2] for change in changes(loaded)] == [("added", "added")]


def test_a_column_with_one_value_for_old_rows_is_added_without_rewriting_them(loaded):
    before = loaded.rows("select id, ctid from raw.orders order by id")
    row = "insert into orders values (4, 'n', 4, now(), 'y')"
    again(loaded, f"alter table orders add added text default 'x'; {row}").ok()
    assert_same(loaded, "id, added")
    assert loaded.rows("select id, ctid from raw.orders where id < 4 order by id") == before


def test_a_column_that_is_selected_later_is_read_for_old_rows_too(pipe):
    pipe.do(ORDERS)
    state = pipe.sync({"public-orders": {**INCREMENTAL, "select": ["id", "updated_at"]}}).ok().state
    synced = pipe.sync(STREAMS, state).ok()
    assert "from its beginning: note was not selected before" in synced.tap_log
    assert_same(pipe, "id, note, amount")


def test_a_dropped_column_keeps_its_values_in_raw(loaded):
    again(loaded, "alter table orders drop note; insert into orders values (4, 4)").ok()
    assert loaded.rows("select id, note from raw.orders order by id") == [
        *((n, f"note {n}") for n in (1, 2, 3)),
        (4, None),
    ]
    assert changes(loaded) == [("dropped", "note", "character varying(10)", None)]
    again(loaded, "").ok()
    assert len(changes(loaded)) == 1


def test_a_renamed_column_keeps_its_values_and_its_views(loaded):
    with loaded.warehouse() as connection:
        connection.execute("create view notes as select id, note from raw.orders")
    again(loaded, "alter table orders rename note to remark").ok()
    assert_same(loaded, "id, remark")
    assert loaded.rows("select note from notes where id = 1") == [("note 1",)]
    assert changes(loaded) == [("renamed", "remark", "note", "remark")]


@pytest.mark.parametrize(
    ("column", "type_", "value"),
    [
        ("note", "varchar(40)", "repeat('n', 30)"),
        ("note", "text", "repeat('n', 3000)"),
        ("amount", "numeric(12,4)", "12345678.1234"),
        ("amount", "numeric", "1e20"),
        ("amount", "text", "'a lot'"),
    ],
    ids=str,
)
def test_a_widened_column_is_widened_in_raw(loaded, column, type_, value):
    again(
        loaded,
        f"alter table orders alter {column} type {type_}; update orders set {column} = {value}, "
        "updated_at = now() where id = 1",
    ).ok()
    assert_same(loaded, "id, note, amount")
    ((kind, name, _, becomes),) = changes(loaded)
    assert (kind, name) == ("widened", column)
    assert loaded.rows(
        f"select format_type(atttypid, atttypmod) from pg_attribute where attrelid = 'raw.orders'::regclass and "
        f"attname = '{column}'"
    ) == [(becomes,)]


def test_a_widened_key_is_widened_in_raw(loaded):
    again(loaded, "alter table orders alter id type bigint; insert into orders values (5000000000, 'n', 1)").ok()
    assert_same(loaded, "id, note, amount")


def test_a_column_is_widened_under_views_that_keep_definition_owner_grants_and_rows(loaded):
    name = loaded.rows("select current_database()")[0][0]
    analyst, reader = f"{name}_analyst", f"{name}_reader"
    views = """
        select c.relname, pg_get_viewdef(c.oid), pg_get_userbyid(relowner), relacl::text[], reloptions,
            obj_description(c.oid), (select attacl::text[] from pg_attribute where attrelid = c.oid and attname = 'n')
        from pg_class c where relname in ('amounts', 'sums', 'kept') order by 1
    """
    with loaded.warehouse() as connection:
        connection.execute(f"create role {analyst}; create role {reader}; grant create on schema public to {analyst}")
        connection.execute(
            f"""
            create view amounts with (security_barrier) as select id as n, amount from raw.orders where amount > 1;
            create view sums as select n, sum(amount) as total from amounts group by n;
            create materialized view kept as select s.*, o.note from sums s join raw.orders o on o.id = s.n;
            create unique index on kept (n);
            comment on view amounts is 'What was paid'; comment on column amounts.amount is 'In euros';
            alter view amounts owner to {analyst};
            grant select on raw.orders to {analyst};
            grant select on amounts to {reader} with grant option; grant select (n) on sums to {reader};
            grant select on kept to public;
            """
        )
    before = loaded.rows(views)
    try:
        again(loaded, "alter table orders alter amount type numeric(12,2)").ok()
        assert loaded.rows(views) == before
        assert loaded.rows("select n, total from kept order by 1") == [(2, 2), (3, 3)]
        assert loaded.rows("select count(*) from pg_indexes where tablename = 'kept'") == [(1,)]
        assert loaded.rows("select col_description('amounts'::regclass, 2)") == [("In euros",)]
    finally:
        with loaded.warehouse() as connection:
            connection.execute(f"drop owned by {analyst}, {reader} cascade; drop role {analyst}, {reader}")


# properties of a materialized view, its columns and its indexes that CREATE does not set
EXTRAS = """
    select amname, (select array_agg(row(
            attname, greatest(attstattarget, -1), attstorage, attcompression, attoptions)::text order by attnum)
            from pg_attribute where attrelid = c.oid and attnum > 0),
        (select array_agg(row(
            i.indexrelid::regclass, indisclustered, obj_description(i.indexrelid),
            (select array_agg(greatest(attstattarget, -1)) from pg_attribute where attrelid = indexrelid)
        )::text order by i.indexrelid::regclass::text) from pg_index i where indrelid = c.oid),
        (select array_agg(row(stxowner, greatest(stxstattarget, -1), obj_description(oid),
            pg_get_statisticsobjdef(oid))::text) from pg_statistic_ext where stxrelid = c.oid),
        (select reloptions from pg_class where oid = c.reltoastrelid)
    from pg_class c join pg_am on pg_am.oid = relam where relname = 'held'
"""
MAKE_EXTRAS = """
    create access method other_heap type table handler heap_tableam_handler;
    create materialized view held using other_heap as select id, amount, note from raw.orders;
    create index "by Id" on held (id); create index by_sum on held ((id + 1));
    create statistics id_amount on id, amount from held; alter statistics id_amount set statistics 50;
    comment on statistics id_amount is 'go together'; comment on index "by Id" is 'It''s sorted';
    alter index by_sum alter column 1 set statistics 70;
    alter materialized view held cluster on "by Id";
    alter materialized view held alter id set statistics 0, alter note set storage external,
        alter note set compression pglz, alter amount set (n_distinct = -0.5), set (toast.autovacuum_enabled = off);
"""


def test_a_recreated_materialized_view_keeps_its_storage_and_statistics(loaded):
    with loaded.warehouse() as connection:
        connection.execute(MAKE_EXTRAS)
    before = loaded.rows(EXTRAS)
    assert before[0][0] == "other_heap"
    again(loaded, "alter table orders alter amount type numeric(12,2)").ok()
    assert loaded.rows(EXTRAS) == before


HOLDERS = [
    ("create function f() returns bigint begin atomic select count(*) from amounts; end", "function public.f()"),
    (
        (
            "create function f() returns bigint begin atomic select sum(amount) from raw.orders; end; "
            "create view over as select f()"
        ),
        "function public.f()",
    ),
    ("create function f(a amounts) returns int language sql as 'select 1'", "function public.f(public.amounts)"),
    ("create function f() returns setof amounts language sql as 'select * from amounts'", "function public.f()"),
    ("create type pair as (a amounts, n int)", "composite type column public.pair.a"),
    ("create table noted (a amounts[], n int)", "table column public.noted.a"),
    ("create table noted (a raw.orders)", "table column public.noted.a"),
    ("create domain one as amounts", "type public.one"),
    (
        "create table t (x int); create policy p on t using (exists (select from amounts where id = x))",
        "policy p on public.t",
    ),
    ("create policy p on raw.orders using (amount > 1)", "policy p on raw.orders"),
    (
        (
            "create function g() returns trigger language plpgsql as 'begin return new; end'; create trigger big before"
            " update on raw.orders for each row when (new.amount > 1) execute function g()"
        ),
        "trigger big on raw.orders",
    ),
    (
        "alter table raw.orders add doubled numeric generated always as (amount * 2) stored",
        "default value for raw.orders.doubled",
    ),
    (
        "create publication big for table raw.orders where (amount > 1)",
        "publication relation raw.orders in",
    ),
    ("create view casts as select null::amounts as a", "view public.casts"),
]


def test_dependents_that_are_not_views_are_named_before_a_column_is_widened_with_advice_that_works(loaded):
    table = sql.Identifier("raw", "orders")
    with loaded.warehouse() as connection:
        connection.execute("create view amounts as select id, amount from raw.orders")
        assert not dependent_views.refusals(connection, table)
        for make, name in HOLDERS:
            with connection.transaction(force_rollback=True):
                connection.execute(make.encode())
                (why,) = dependent_views.refusals(connection, table)
                assert why.startswith(name)
                assert " depends on " in why
                with pytest.raises(SingerPostgresError) as raised, connection.transaction():
                    dependent_views.alter_type(connection, table, "amount", "numeric(12,2)")
                assert str(raised.value) == why
                connection.execute(why.split("To remove it: ")[1].encode())
                dependent_views.alter_type(connection, table, "amount", "numeric(12,2)")
        # dependents of another column do not matter
        with connection.transaction():
            connection.execute("create policy p on raw.orders using (note > '')")
            dependent_views.alter_type(connection, table, "amount", "numeric(12,2)")


def test_a_function_that_reads_a_widened_column_is_named_in_the_error_of_the_run(loaded):
    with loaded.warehouse() as connection:
        connection.execute(HOLDERS[0][0].replace("amounts", "raw.orders where amount > 1"))
    error = again(loaded, "alter table orders alter amount type numeric(12,2)").refused("dependent_object")
    assert "function public.f() depends on raw.orders" in error
    with loaded.warehouse() as connection:
        connection.execute(error[error.index("DROP FUNCTION") :].encode())
    loaded.sync(STREAMS, loaded.state).ok()
    assert_same(loaded, "id, amount")


def test_a_narrowed_column_loads_into_the_wider_one(loaded):
    change = "update orders set updated_at = now(), note = 'x'"
    again(loaded, f"alter table orders alter note type varchar(7); {change}").ok()
    assert_same(loaded, "id, note")
    assert changes(loaded) == [("narrowed", "note", "character varying(10)", "character varying(7)")]


def test_a_dropped_not_null_is_dropped_in_raw(loaded):
    again(loaded, "alter table orders alter amount drop not null; insert into orders (id) values (4)").ok()
    assert_same(loaded, "id, amount")


@pytest.mark.parametrize(
    "statements",
    [
        "alter table orders alter note type int using id",
        "alter table orders alter amount type numeric(8,1)",
        "alter table orders alter note type jsonb using to_jsonb(note)",
    ],
    ids=lambda statement: statement.partition(" using")[0].rpartition("alter ")[2],
)
def test_a_retyped_column_stops_only_its_stream_and_the_error_names_the_fix(loaded, statements):
    loaded.do(OTHERS)
    loaded.do(statements)
    synced = loaded.sync({**STREAMS, "public-others": INCREMENTAL}, loaded.state)
    error = synced.refused("column_retyped")
    column = statements.split()[4]
    assert f"raw.orders.{column} is" in error
    assert loaded.rows("select id from raw.others") == [(1,)]
    assert synced.state["bookmarks"]["public-orders"] == loaded.state["bookmarks"]["public-orders"]
    assert "public-others" in synced.state["bookmarks"]
    fix = f'ALTER TABLE "raw"."orders" RENAME COLUMN "{column}" TO'
    assert fix in error
    with loaded.warehouse() as connection:
        connection.execute(f"{fix} old")
    loaded.do("update orders set updated_at = now()")
    loaded.sync(STREAMS, synced.state).ok()
    assert_same(loaded, f"id, {column}")


def test_a_recreated_column_is_not_mixed_with_the_old_one(loaded):
    error = again(loaded, "alter table orders drop note; alter table orders add note varchar(10)").refused(
        "column_recreated"
    )
    fix = 'ALTER TABLE "raw"."orders" RENAME COLUMN "note" TO'
    assert fix in error
    with loaded.warehouse() as connection:
        connection.execute(f"{fix} note_until_today")
    again(loaded, "").ok()
    assert_same(loaded, "id, note")


def test_a_changed_key_stops_the_stream_and_the_error_names_the_fix(loaded):
    error = again(loaded, "alter table orders drop constraint orders_pkey, add primary key (id, amount)").refused(
        "key_changed"
    )
    statement = error[error.index("ALTER TABLE") :].partition(";")[0]
    with loaded.warehouse() as connection:
        connection.execute(statement)
    again(loaded, "insert into orders values (1, 'second', 7)").ok()
    assert loaded.rows("select count(*) from raw.orders where id = 1") == [(2,)]


def test_a_dropped_table_stops_only_its_stream(loaded):
    loaded.do(OTHERS)
    catalog = loaded.catalog({**STREAMS, "public-others": INCREMENTAL})
    loaded.do("drop table orders")
    synced = loaded.sync(catalog, loaded.state)
    assert "The source has no public.orders" in synced.refused("table_missing")
    assert loaded.rows("select id from raw.others") == [(1,)]
    assert loaded.rows("select count(*) from raw.orders") == [(3,)]


def test_a_recreated_table_is_read_from_the_beginning(loaded):
    synced = again(loaded, f"drop table orders; {ORDERS}; update orders set note = 'of the new'").ok()
    assert "from its beginning: it was dropped and created again" in synced.tap_log
    assert_same(loaded, "id, note, amount")


def test_a_full_table_stream_follows_changes_too(pipe):
    pipe.do(ORDERS)
    streams = {"public-orders": FULL_TABLE}
    pipe.sync(streams).ok()
    pipe.do("alter table orders rename note to remark; alter table orders alter id type bigint")
    pipe.do("alter table orders add x int")
    pipe.do("update orders set x = 1 where id = 2; delete from orders where id = 3")
    pipe.sync(streams).ok()
    assert_same(pipe, "id, remark, amount, x")


@pytest.mark.parametrize("change", ["where", "masks"])
def test_when_a_where_clause_or_a_mask_changes_all_rows_are_read_again(loaded, change):
    if change == "where":
        loaded.tap["where"] = {"public-orders": "id > 1"}
    else:
        loaded.tap["masks"] = {"public-orders": {"note": "null"}}
    synced = again(loaded, "").ok()
    assert "Reading public-orders from its beginning" in synced.tap_log
    if change == "masks":
        assert loaded.rows("select distinct note from raw.orders") == [(None,)]
