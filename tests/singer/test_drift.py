"""Schema changes of a source table between two runs: applied without losing a value, or refused by name.

Each change is made to a table of its own, and all tables are loaded by the same runs: first before the changes, then
after them. The tests look at one table each.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest
from psycopg import sql

from singer_postgres.core.errors import SingerPostgresError
from singer_postgres.core.warehouse import dependent_views
from tests.singer.advice import refusals
from tests.singer.conftest import FULL_TABLE, INCREMENTAL

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.singer.conftest import Pipe, Synced

TABLE = """
    create table {t} (
        id int primary key, note varchar(10), amount numeric(8,2) not null,
        updated_at timestamptz not null default now()
    );
    insert into {t} select n, 'note ' || n, n, now() - interval '1 day' from generate_series(1, 3) n;
"""
ADDED = {
    "text": "text",
    "default": "text default 'from before'",
    "array": "int[] not null default '{{1,2}}'",
    "uuid": "uuid not null default gen_random_uuid()",
}
WIDENED = {
    "varchar": ("note", "varchar(40)", "repeat('n', 30)"),
    "note_text": ("note", "text", "repeat('n', 3000)"),
    "scale": ("amount", "numeric(12,4)", "12345678.1234"),
    "numeric": ("amount", "numeric", "1e20"),
    "amount_text": ("amount", "text", "'a lot'"),
}
# by table: what happens to it between the two runs
CHANGES = {
    **{f"added_{name}": f"alter table {{t}} add added {column}" for name, column in ADDED.items()},
    "one_value": "alter table {t} add added text default 'x'; insert into {t} values (4, 'n', 4, now(), 'y')",
    "selected": "",
    "dropped": "alter table {t} drop note; insert into {t} values (4, 4)",
    "renamed": "alter table {t} rename note to remark",
    **{
        f"widened_{name}": f"alter table {{t}} alter {column} type {type_}; "
        f"update {{t}} set {column} = {value}, updated_at = now() where id = 1"
        for name, (column, type_, value) in WIDENED.items()
    },
    "widened_key": "alter table {t} alter id type bigint; insert into {t} values (5000000000, 'n', 1)",
    "viewed": "alter table {t} alter amount type numeric(12,2)",
    "stored": "alter table {t} alter amount type numeric(12,2)",
    "narrowed": "alter table {t} alter note type varchar(7); update {t} set updated_at = now(), note = 'x'",
    "nullable": "alter table {t} alter amount drop not null; insert into {t} (id) values (4)",
    "made_again": "drop table {t}; " + TABLE + "; update {t} set note = 'of the new'",
    "whole": "alter table {t} rename note to remark; alter table {t} alter id type bigint; alter table {t} add x int; "
    "update {t} set x = 1 where id = 2; delete from {t} where id = 3",
    "filtered": "",
    "masked": "",
}
METADATA = {"whole": FULL_TABLE, "selected": {**INCREMENTAL, "select": ["id", "updated_at"]}}


def streams(tables: Any) -> dict[str, dict[str, Any]]:
    return {f"public-{table}": METADATA.get(table, INCREMENTAL) for table in tables}


def assert_same(pipe: Pipe, table: str, columns: str) -> None:
    with pipe.source() as connection:
        there = connection.execute(f"select row({columns})::text from {table} order by id").fetchall()
    assert pipe.rows(f"select row({columns})::text from raw.{table} order by id") == there


def changes(pipe: Pipe, table: str) -> list[tuple]:
    query = "select change, column_name, was, becomes from raw._tidemark_schema_changes where table_name = '{}'"
    return pipe.rows(f"{query.format(table)} order by id")


VIEWS = """
    select c.relname, pg_get_viewdef(c.oid), pg_get_userbyid(relowner), relacl::text[], reloptions,
        obj_description(c.oid), (select attacl::text[] from pg_attribute where attrelid = c.oid and attname = 'n')
    from pg_class c where relname in ('amounts', 'sums', 'kept') order by 1
"""
MAKE_VIEWS = """
    create role {analyst}; create role {reader}; grant create on schema public to {analyst};
    create view amounts with (security_barrier) as select id as n, amount from raw.viewed where amount > 1;
    create view sums as select n, sum(amount) as total from amounts group by n;
    create materialized view kept as select s.*, o.note from sums s join raw.viewed o on o.id = s.n;
    create unique index on kept (n);
    comment on view amounts is 'What was paid'; comment on column amounts.amount is 'In euros';
    alter view amounts owner to {analyst};
    grant select on raw.viewed to {analyst};
    grant select on amounts to {reader} with grant option; grant select (n) on sums to {reader};
    grant select on kept to public;
"""

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
    create materialized view held using other_heap as select id, amount, note from raw.stored;
    create index "by Id" on held (id); create index by_sum on held ((id + 1));
    create statistics id_amount on id, amount from held; alter statistics id_amount set statistics 50;
    comment on statistics id_amount is 'go together'; comment on index "by Id" is 'It''s sorted';
    alter index by_sum alter column 1 set statistics 70;
    alter materialized view held cluster on "by Id";
    alter materialized view held alter id set statistics 0, alter note set storage external,
        alter note set compression pglz, alter amount set (n_distinct = -0.5), set (toast.autovacuum_enabled = off);
"""


OLD_ROWS = "select id, ctid from raw.one_value where id < 4 order by id"


@dataclass
class Changed:
    """The tables after their changes, and what was found before."""

    pipe: Pipe
    run: Synced
    views: list[tuple]
    stored: list[tuple]
    old_rows: list[tuple]


@pytest.fixture(scope="module")
def changed(shared_pipe: Pipe) -> Iterator[Changed]:
    """All tables of CHANGES, loaded before and after."""
    pipe = shared_pipe
    for table in CHANGES:
        pipe.do(TABLE.format(t=table))
    state = pipe.sync(streams(CHANGES)).ok().state
    name = pipe.rows("select current_database()")[0][0]
    roles = {"analyst": f"{name}_analyst", "reader": f"{name}_reader"}
    try:
        with pipe.warehouse() as connection:
            connection.execute(MAKE_VIEWS.format(**roles))
            connection.execute(MAKE_EXTRAS)
            connection.execute("create view notes as select id, note from raw.renamed")
        before = [pipe.rows(query) for query in (VIEWS, EXTRAS, OLD_ROWS)]
        with pipe.source() as connection:
            for table, statements in CHANGES.items():
                connection.execute(statements.format(t=table))
        pipe.tap |= {"where": {"public-filtered": "id > 1"}, "masks": {"public-masked": {"note": "null"}}}
        run = pipe.sync(streams(CHANGES) | {"public-selected": INCREMENTAL}, state).ok()
        yield Changed(pipe, run, *before)
    finally:
        with pipe.warehouse() as connection:
            connection.execute(
                "drop owned by {analyst}, {reader} cascade; drop role {analyst}, {reader}".format(**roles)
            )


@pytest.mark.parametrize("column", ADDED)
def test_an_added_column_is_loaded_with_the_values_of_old_rows(changed, column):
    assert_same(changed.pipe, f"added_{column}", "id, added")
    assert [change[:2] for change in changes(changed.pipe, f"added_{column}")] == [("added", "added")]


def test_a_column_with_one_value_for_old_rows_is_added_without_rewriting_them(changed):
    assert_same(changed.pipe, "one_value", "id, added")
    assert changed.pipe.rows(OLD_ROWS) == changed.old_rows


def test_a_column_that_is_selected_later_is_read_for_old_rows_too(changed):
    assert "public-selected from its beginning: note was not selected before" in changed.run.tap_log
    assert_same(changed.pipe, "selected", "id, note, amount")


def test_a_dropped_column_keeps_its_values_in_raw(changed):
    assert changed.pipe.rows("select id, note from raw.dropped order by id") == [
        *((n, f"note {n}") for n in (1, 2, 3)),
        (4, None),
    ]
    assert changes(changed.pipe, "dropped") == [("dropped", "note", "character varying(10)", None)]


def test_a_renamed_column_keeps_its_values_and_its_views(changed):
    assert_same(changed.pipe, "renamed", "id, remark")
    assert changed.pipe.rows("select note from notes where id = 1") == [("note 1",)]
    assert changes(changed.pipe, "renamed") == [("renamed", "remark", "note", "remark")]


@pytest.mark.parametrize("name", WIDENED)
def test_a_widened_column_is_widened_in_raw(changed, name):
    table, column = f"widened_{name}", WIDENED[name][0]
    assert_same(changed.pipe, table, "id, note, amount")
    ((kind, which, _, becomes),) = changes(changed.pipe, table)
    assert (kind, which) == ("widened", column)
    assert changed.pipe.rows(
        f"select format_type(atttypid, atttypmod) from pg_attribute where attrelid = 'raw.{table}'::regclass and "
        f"attname = '{column}'"
    ) == [(becomes,)]


def test_a_widened_key_is_widened_in_raw(changed):
    assert_same(changed.pipe, "widened_key", "id, note, amount")


def test_a_column_is_widened_under_views_that_keep_definition_owner_grants_and_rows(changed):
    pipe = changed.pipe
    assert [change[0] for change in changes(pipe, "viewed")] == ["widened"]
    assert pipe.rows(VIEWS) == changed.views
    assert pipe.rows("select n, total from kept order by 1") == [(2, 2), (3, 3)]
    assert pipe.rows("select count(*) from pg_indexes where tablename = 'kept'") == [(1,)]
    assert pipe.rows("select col_description('amounts'::regclass, 2)") == [("In euros",)]


def test_a_recreated_materialized_view_keeps_its_storage_and_statistics(changed):
    assert [change[0] for change in changes(changed.pipe, "stored")] == ["widened"]
    assert changed.stored[0][0] == "other_heap"
    assert changed.pipe.rows(EXTRAS) == changed.stored


def test_a_narrowed_column_loads_into_the_wider_one(changed):
    assert_same(changed.pipe, "narrowed", "id, note")
    narrowed = ("narrowed", "note", "character varying(10)", "character varying(7)")
    assert changes(changed.pipe, "narrowed") == [narrowed]


def test_a_dropped_not_null_is_dropped_in_raw(changed):
    assert_same(changed.pipe, "nullable", "id, amount")


def test_a_recreated_table_is_read_from_the_beginning(changed):
    assert "public-made_again from its beginning: it was dropped and created again" in changed.run.tap_log
    assert_same(changed.pipe, "made_again", "id, note, amount")


def test_a_full_table_stream_follows_changes_too(changed):
    assert_same(changed.pipe, "whole", "id, remark, amount, x")


def test_when_a_where_clause_or_a_mask_changes_all_rows_are_read_again(changed):
    for table in ("filtered", "masked"):
        assert f"Reading public-{table} from its beginning" in changed.run.tap_log
    assert changed.pipe.rows("select distinct note from raw.masked") == [(None,)]


def test_a_change_is_told_once(changed):
    count = "select count(*) from raw._tidemark_schema_changes"
    before = changed.pipe.rows(count)
    changed.pipe.sync(streams(CHANGES) | {"public-selected": INCREMENTAL}, changed.run.state).ok()
    assert changed.pipe.rows(count) == before


HOLDERS = [
    ("create function f() returns bigint begin atomic select count(*) from amounts; end", "function public.f()"),
    (
        (
            "create function f() returns bigint begin atomic select sum(amount) from raw.held; end; "
            "create view over as select f()"
        ),
        "function public.f()",
    ),
    ("create function f(a amounts) returns int language sql as 'select 1'", "function public.f(public.amounts)"),
    ("create function f() returns setof amounts language sql as 'select * from amounts'", "function public.f()"),
    ("create type pair as (a amounts, n int)", "composite type column public.pair.a"),
    ("create table noted (a amounts[], n int)", "table column public.noted.a"),
    ("create table noted (a raw.held)", "table column public.noted.a"),
    ("create domain one as amounts", "type public.one"),
    (
        "create table t (x int); create policy p on t using (exists (select from amounts where id = x))",
        "policy p on public.t",
    ),
    ("create policy p on raw.held using (amount > 1)", "policy p on raw.held"),
    (
        (
            "create function g() returns trigger language plpgsql as 'begin return new; end'; create trigger big before"
            " update on raw.held for each row when (new.amount > 1) execute function g()"
        ),
        "trigger big on raw.held",
    ),
    (
        "alter table raw.held add doubled numeric generated always as (amount * 2) stored",
        "default value for raw.held.doubled",
    ),
    (
        "create publication big for table raw.held where (amount > 1)",
        "publication relation raw.held in",
    ),
    ("create view casts as select null::amounts as a", "view public.casts"),
]


def test_dependents_that_are_not_views_are_named_before_a_column_is_widened_with_advice_that_works(shared_pipe):
    table = sql.Identifier("raw", "held")
    with shared_pipe.warehouse() as connection, connection.transaction(force_rollback=True):
        connection.execute("create schema if not exists raw; drop view if exists amounts cascade")
        connection.execute(TABLE.format(t="raw.held"))
        connection.execute("create view amounts as select id, amount from raw.held")
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
            connection.execute("create policy p on raw.held using (note > '')")
            dependent_views.alter_type(connection, table, "amount", "numeric(12,2)")


# by table: a change that is refused, the error's code, the column to set aside, and what is equal after that
REFUSED = {
    "to_int": ("alter table {t} alter note type int using id", "column_retyped", "note", "id, note"),
    "scaled": ("alter table {t} alter amount type numeric(8,1)", "column_retyped", "amount", "id, amount"),
    "to_jsonb": ("alter table {t} alter note type jsonb using to_jsonb(note)", "column_retyped", "note", "id, note"),
    "replaced": (
        "alter table {t} drop note; alter table {t} add note varchar(10)",
        "column_recreated",
        "note",
        "id, note",
    ),
    "keyed": (
        "alter table {t} drop constraint {t}_pkey, add primary key (id, amount)",
        "key_changed",
        "",
        "id, amount",
    ),
    "called": ("alter table {t} alter amount type numeric(12,2)", "dependent_object", "", "id, amount"),
    "gone": ("drop table {t}", "table_missing", "", ""),
}


@dataclass
class Refused:
    """A run that refused the tables of REFUSED, and the one that followed its advice."""

    pipe: Pipe
    before: dict[str, Any]
    run: Synced
    errors: dict[str, str]


@pytest.fixture(scope="module")
def refused(shared_pipe: Pipe) -> Refused:
    pipe = shared_pipe
    for table in (*REFUSED, "others"):
        pipe.do(TABLE.format(t=table))
    before = pipe.sync(streams(REFUSED)).ok().state
    with pipe.warehouse() as connection:
        connection.execute(
            "create function f() returns bigint begin atomic select count(*) from raw.called where amount > 1; end"
        )
    # a table that was dropped is in the catalog that was made before
    tables = streams([*REFUSED, "others"])
    gone = [stream for stream in pipe.catalog(tables)["streams"] if stream["tap_stream_id"] == "public-gone"]
    for table, (statements, *_) in REFUSED.items():
        pipe.do(statements.format(t=table))
    catalog = pipe.catalog(tables)
    catalog["streams"] += gone
    run = pipe.sync(catalog, before)
    assert "Traceback" not in run.tap_log + run.target_log
    assert run.codes == {"streams_failed", *(code for _, code, _, _ in REFUSED.values())}
    said = refusals(run)
    assert len(said) == len(REFUSED), said
    errors = {table: next(line for line in said if re.search(rf"\b{table}\b", line)) for table in REFUSED}
    with pipe.warehouse() as connection:
        for error in errors.values():
            if advice := re.search("(?:ALTER TABLE|DROP FUNCTION) [^;…]*", error):
                connection.execute(f"{advice[0]} old" if "RENAME COLUMN" in advice[0] else advice[0])
    pipe.do("insert into keyed values (1, 'second', 7)")
    for table in REFUSED.keys() - {"gone"}:
        pipe.do(f"update {table} set updated_at = now()")
    pipe.sync(streams(REFUSED.keys() - {"gone"}), run.state).ok()
    return Refused(pipe, before, run, errors)


@pytest.mark.parametrize("table", ["to_int", "scaled", "to_jsonb"])
def test_a_retyped_column_stops_only_its_stream_and_the_error_names_the_fix(refused, table):
    column = REFUSED[table][2]
    assert f"raw.{table}.{column} is" in refused.errors[table]
    assert f'ALTER TABLE "raw"."{table}" RENAME COLUMN "{column}" TO' in refused.errors[table]
    assert_same(refused.pipe, table, REFUSED[table][3])


def test_a_refused_stream_keeps_its_bookmark_and_the_others_are_loaded(refused):
    assert refused.pipe.rows("select id from raw.others order by id") == [(1,), (2,), (3,)]
    state = refused.run.state["bookmarks"]
    assert "public-others" in state
    for table in REFUSED:
        assert state[f"public-{table}"] == refused.before["bookmarks"][f"public-{table}"]


def test_a_recreated_column_is_not_mixed_with_the_old_one(refused):
    assert 'ALTER TABLE "raw"."replaced" RENAME COLUMN "note" TO' in refused.errors["replaced"]
    assert_same(refused.pipe, "replaced", "id, note")


def test_a_changed_key_stops_the_stream_and_the_error_names_the_fix(refused):
    assert refused.pipe.rows("select count(*) from raw.keyed where id = 1") == [(2,)]
    assert_same(refused.pipe, "keyed", "id, amount")


def test_a_function_that_reads_a_widened_column_is_named_in_the_error_of_the_run(refused):
    assert "function public.f() depends on raw.called" in refused.errors["called"]
    assert_same(refused.pipe, "called", "id, amount")


def test_a_dropped_table_stops_only_its_stream(refused):
    assert "The source has no public.gone" in refused.errors["gone"]
    assert refused.pipe.rows("select count(*) from raw.gone") == [(3,)]
