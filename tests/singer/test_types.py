"""Values of every type arrive unchanged or are refused by name, and never change silently.

Two values are the same if COPY writes the same text for them under settings that are fixed here. The servers' own
settings never matter.
"""

from __future__ import annotations

from dataclasses import replace

import pytest
from psycopg import sql

from tests.servers import INSTALLATIONS, major
from tests.singer.conftest import FULL_TABLE, INCREMENTAL
from tests.singer.kinds import BINARY, EXTENSIONS, OTHERS, SETUP, UNREADABLE, XML
from tests.singer.sample import (
    FIXED,
    ROWS,
    Sample,
    both,
    cells,
    columns,
    kinds_of,
    reads_xml,
    set_oddly,
    types,
    version,
)
from tests.singer.values import Kind


def test_values_of_every_type_arrive_unchanged_whatever_the_settings_and_are_rewritten_only_if_changed(
    pipe_of_versions,
):
    pipe = pipe_of_versions
    with pipe.source(options=FIXED.replace("search_path=", "search_path=public")) as connection:
        connection.execute(SETUP)
    set_oddly(pipe)
    kinds = kinds_of(pipe)
    every, binary = columns(kinds), columns(BINARY)
    # in binary form, an array contains the oid of its elements' type
    as_binary = [column for column in binary if not (column.name.endswith("_array") and column.lands)]
    keyed = [Sample(pipe, "every", every), Sample(pipe, "alike", as_binary)]
    replaced = [Sample(pipe, "every_new", every, key=False), Sample(pipe, "alike_new", as_binary, key=False)]
    kept = [Sample(pipe, "every_old", every, key=False), Sample(pipe, "alike_old", as_binary, key=False)]
    samples = (*keyed, *replaced, *kept)
    catalog = pipe.catalog({f"public-{sample.table}": INCREMENTAL if sample.key else FULL_TABLE for sample in samples})
    # the first load goes directly into the table, or replaces nothing
    first = pipe.sync(catalog).ok()
    for sample in samples:
        sample.check()
    before = {sample.table: sample.written_by() for sample in samples}
    # the next goes through a stage; unchanged rows are read again, because they are recent
    changed = range(0, ROWS, 3)
    for sample in (*keyed, *replaced):
        sample.put(changed, shift=1)
    second = pipe.sync(catalog, first.state, listen=True).ok()
    forms = {m["stream"]: m["pgcopy"]["binary"] for m in second.messages if m["type"] == "SCHEMA"}
    assert forms == {f"public-{sample.table}": sample.columns is as_binary for sample in samples}
    expected = {s.table: set(changed) for s in keyed} | {s.table: set(range(ROWS)) for s in replaced}
    for sample in samples:
        sample.check()
        after = sample.written_by()
        written = {id_ for id_ in after if after[id_] != before[sample.table][id_]}
        assert written == expected.get(sample.table, set())


@pytest.mark.long
def test_old_rows_get_a_default_of_every_type_without_being_read_again(pipe):
    with pipe.source(options=FIXED.replace("search_path=", "search_path=public")) as connection:
        connection.execute(SETUP)
    set_oddly(pipe)
    pipe.do("create table every (id int primary key, updated_at timestamptz default now() - interval '1 day')")
    pipe.do("insert into every values (1), (2)")
    streams = {"public-every": INCREMENTAL}
    state = pipe.sync(streams).ok().state
    with pipe.source(options=FIXED) as connection:
        rows = connection.execute("select typname, format_type(oid, null) from pg_type where typtype = 'd'")
        domains = {name.removeprefix("public.") for row in rows for name in row}
    added = [
        (f"c{number}", column.type, value)
        for number, (column, value) in enumerate(
            # a role's name can't be a default, and a domain's default makes the server rewrite all rows
            (column, value)
            for column in columns(kinds_of(pipe))
            for value in column.values[:8]
            if "regrole" not in column.type and column.type not in domains
        )
    ][:1580]
    with pipe.source(options=FIXED.replace("search_path=", "search_path=public")) as connection:
        for first in range(0, len(added), 100):
            parts = (
                sql.SQL("ADD {} {} DEFAULT {}").format(sql.Identifier(name), sql.SQL(type_), sql.Literal(value))
                for name, type_, value in added[first : first + 100]
            )
            connection.execute(sql.SQL("ALTER TABLE every {}").format(sql.SQL(", ").join(parts)))
    synced = pipe.sync(streams, state).ok()
    assert "from its beginning" not in synced.tap_log
    names = ["id", *(name for name, _, _ in added)]
    with pipe.source(options=FIXED) as source, pipe.warehouse(options=FIXED) as warehouse:
        there, here = cells(source, "public", "every", names), cells(warehouse, "raw", "every", names)
    wrong = [
        (type_, value, mine, theirs)
        for (_, type_, value), theirs, mine in zip(added, there[0][1:], here[0][1:], strict=True)
        if mine != theirs
    ]
    assert not wrong
    assert there == here


def test_every_type_that_a_server_has_is_tested_here(installed):
    for installation in INSTALLATIONS:
        with installed(installation).connect("source") as connection:
            rows = connection.execute(
                "select typname from pg_type t where typnamespace = 'pg_catalog'::regnamespace and typtype in "
                "('b', 'r', 'm', 'e', 'd') and not (typcategory = 'A' and typname like '\\_%')"
            )
            known = {name for (name,) in rows}
            tested = {
                name
                for (name,) in connection.execute(
                    "select (select typname from pg_type where oid = to_regtype(type)) from unnest(%s::text[]) type",
                    [[kind.type for kind in (*BINARY, *OTHERS, XML)]],
                )
            }
        assert known <= tested | UNREADABLE | {"unknown"}


def test_an_unreadable_type_is_refused_with_its_column_its_type_and_what_to_do(pipe):
    with pipe.source() as connection:
        known = {name for (name,) in connection.execute("select typname from pg_type where typtype = 'b'")}
    for type_ in UNREADABLE & known:
        pipe.do(f"create table of_{type_} (id int primary key, bad {type_}, updated_at timestamptz default now())")
    pipe.do(
        "create table of_array (id int primary key, bad gtsvector[], updated_at timestamptz);"
        "create domain no_tree as pg_node_tree; create table of_domain (id int primary key, bad no_tree);"
    )
    catalog = pipe.catalog({})
    tables = {stream["tap_stream_id"].removeprefix("public-") for stream in catalog["streams"]}
    assert len(tables) == len(UNREADABLE & known) + 2
    bad = {"of_array": "gtsvector[]", "of_domain": "public.no_tree"}
    # a run ends at its first refusal, so not all are tried
    for name in ("of_pg_node_tree", "of_array"):
        type_ = bad.get(name, name.removeprefix("of_"))
        error = pipe.sync({f"public-{name}": FULL_TABLE}).refused("type_unsupported")
        assert f"public.{name}.bad is of type {type_}, " in error
        assert f"meltano select --exclude tap-postgres public-{name} bad" in error
    # without the column, or with null in its place, all can be read
    pipe.do("; ".join(f"insert into {table} (id) values (7)" for table in tables))
    without = {f"public-{table}": {**FULL_TABLE, "select": ["id"]} for table in tables - bad.keys()}
    pipe.tap["masks"] = {f"public-{table}": {"bad": "null"} for table in bad}
    pipe.sync(without | {f"public-{table}": FULL_TABLE for table in bad}).ok()
    with pipe.warehouse() as warehouse:
        for table in tables:
            assert warehouse.execute(f"select id from raw.{table}").fetchall() == [(7,)]
            assert types(warehouse, "raw", table).get("bad") == ("text" if table in bad else None)
    pipe.tap |= {"use_copy": False, "masks": {}}
    assert "is of type pg_node_tree, " in pipe.sync({"public-of_pg_node_tree": FULL_TABLE}).refused("type_unsupported")


def test_an_infinite_interval_is_refused_by_name_if_the_warehouse_can_not_hold_it(make_pipe):
    majors = {name: major(directory) for name, directory in INSTALLATIONS.items()}
    newest, oldest = (of(majors, key=majors.__getitem__) for of in (max, min))
    if not majors[newest] >= 17 > majors[oldest]:
        pytest.skip("takes a server that has infinite intervals and one that has not")
    pipe = make_pipe(newest, oldest)
    pipe.do("create table waits (id int primary key, how_long interval); insert into waits values (1, 'infinity')")
    error = pipe.sync({"public-waits": FULL_TABLE}).refused("value_invalid")
    assert 'invalid input syntax for type interval: "infinity"' in error
    assert "column how_long" in error


def test_xml_is_loaded_as_text_if_the_warehouse_can_not_parse_it(make_pipe):
    pipes = [make_pipe(source, warehouse) for source in INSTALLATIONS for warehouse in INSTALLATIONS]
    pipe = next((pipe for pipe in pipes if both(pipe, reads_xml) == (True, False)), None)
    if pipe is None:
        pytest.skip("takes a server with libxml and one without")
    sample = Sample(pipe, "pages", columns([replace(XML, lands="text", array="text[]")]))
    state = pipe.sync({"public-pages": INCREMENTAL}).ok().state
    sample.check()
    before = sample.written_by()
    sample.put([1, 2], shift=1)
    pipe.sync({"public-pages": INCREMENTAL}, state).ok()
    sample.check()
    assert {id_ for id_, xids in sample.written_by().items() if xids != before[id_]} == {1, 2}


@pytest.mark.parametrize("there", ["in a schema of its own", "not in the warehouse"])
def test_extension_types_are_kept_if_the_warehouse_has_them_and_text_otherwise(pipe, there):
    # a user-defined type, as in extensions, with a delimiter other than a comma in its arrays
    own = """
        create type "a Type"; create function "a Type in"(cstring) returns "a Type" language internal immutable strict
        as 'textin'; create function "a Type out"("a Type") returns cstring language internal immutable strict
        as 'textout'; create type "a Type" (input = "a Type in", output = "a Type out", like = text, delimiter = ':')
    """
    with pipe.source() as connection:
        available = {name for (name,) in connection.execute("select name from pg_available_extensions")}
        kinds = [kind for kind in EXTENSIONS if kind.type in available]
        connection.execute('create schema "my.ext"')
        for kind in kinds:
            connection.execute(f'create extension {kind.type} schema "my.ext"')
        connection.execute(own)
    here = there == "in a schema of its own"
    if here:
        with pipe.warehouse() as connection:
            connection.execute('create schema "Ext "')
            for kind in kinds:
                connection.execute(f'create extension {kind.type} schema "Ext "')
            connection.execute(own)
    made = [
        replace(kind, type=f'"my.ext".{kind.type}', lands=f'"Ext ".{kind.type}', array=f'"Ext ".{kind.type}[]')
        if here
        else replace(kind, type=f'"my.ext".{kind.type}', lands="text", array="text[]")
        for kind in kinds
    ]
    lands = 'public."a Type"' if here else "text"
    # its array becomes text in any case
    made.append(Kind("own", '"a Type"', ("a", "NULL", "x,y:z"), lands=lands, array="text", delimiter=":"))
    sample = Sample(pipe, "things", columns(made))
    state = pipe.sync({"public-things": INCREMENTAL}).ok().state
    sample.check()
    before = sample.written_by()
    sample.put([1, 2], shift=1)
    pipe.sync({"public-things": INCREMENTAL}, state).ok()
    sample.check()
    assert {id_ for id_, xids in sample.written_by().items() if xids != before[id_]} == {1, 2}


KEYS = {
    "array": ("int[]", ["{}", "{NULL}", "{1,2}", "{{1},{2}}", "[0:1]={1,2}"]),
    "uuid": ("uuid", ["00000000-0000-0000-0000-000000000000", "ffffffff-ffff-ffff-ffff-ffffffffffff"]),
    "text": ("text", ["", " ", "\\N", "\\.", "a\tb\n", "A", "a", "a ", "é", "e\u0301", "'\"%s{0}", "🐘"]),
    "bytea": ("bytea", ["\\x", "\\x00", "\\x5c4e"]),
    "mood": ("mood", ["sad", "NULL", "\\N"]),
    "pair": ("pair", ["(1,a)", "(1,)", "(,)"]),
    "range": ("tstzrange", ["empty", "(,)", "[2026-01-01,2026-01-02)"]),
    "inet": ("inet", ["10.0.0.0/8", "10.0.0.0/9", "::1"]),
    "jsonb": ("jsonb", ["null", "1", '"1"', "{}"]),
    "timestamptz": ("timestamptz", ["infinity", "-infinity", "2026-01-01 00:00:00.000001+05:30"]),
    "float": ("double precision", ["NaN", "0", "Infinity", "0.30000000000000004", "0.3"]),
    "char": ("char(3)", ["", "a", "ab"]),
}
# equal but not identical: the first becomes the second
EQUALS = {
    "numeric": ("numeric", "1.0", "1.00"),
    "zero": ("double precision", "0", "-0"),
    "interval": ("interval", "30 days", "1 mon"),
    "json": ("jsonb", "[1.0]", "[1.00]"),
    "price": ("any_price", "2.5", "2.50"),
    "numbers": ("numeric[]", "{1.0}", "{1.00}"),
}


@pytest.mark.long
def test_keys_of_any_type_identify_rows(pipe):
    pipe.do(SETUP + "create domain any_price as numeric")
    stamp = "updated_at timestamptz not null default clock_timestamp()"
    with pipe.source() as connection:
        for name, (type_, values) in KEYS.items():
            connection.execute(
                f"create table by_{name} (part int, k {type_}, note text, {stamp}, primary key (k, part))"
            )
            for value in values:
                connection.execute(f"insert into by_{name} values (1, %s, 'old'), (2, %s, 'old')", [value, value])
        for name, (type_, first, _) in EQUALS.items():
            connection.execute(f"create table as_{name} (k {type_} primary key, note text, {stamp})")
            connection.execute(f"insert into as_{name} values (%s, 'old')", [first])
    tables = [*(f"by_{name}" for name in KEYS), *(f"as_{name}" for name in EQUALS)]
    catalog = pipe.catalog({f"public-{table}": INCREMENTAL for table in tables})
    state = pipe.sync(catalog).ok().state
    written = 'select k::text, note, _tidemark_loaded_xid::text from raw.{} order by k::text collate "C", 2'
    before = {table: pipe.rows(written.format(table)) for table in tables}
    with pipe.source() as connection:
        for name in KEYS:
            connection.execute(f"update by_{name} set note = 'new', updated_at = now() where part = 2")
        for name, (_, _, second) in EQUALS.items():
            connection.execute(f"update as_{name} set k = %s", [second])
        there = {
            table: connection.execute(f'select k::text, note from {table} order by k::text collate "C", 2').fetchall()
            for table in tables
        }
    state = pipe.sync(catalog, state).ok().state
    after = {table: pipe.rows(written.format(table)) for table in tables}
    for table in tables:
        assert [row[:2] for row in after[table]] == there[table], table
        old = {xid for _, _, xid in before[table]}
        assert {note for _, note, xid in after[table] if xid in old} == ({"old"} if table.startswith("by") else set())
    # now they are identical: nothing is written any more, by chunks or by records (not all keys can be in records)
    pipe.sync(catalog, state).ok()
    assert {table: pipe.rows(written.format(table)) for table in tables} == after
    pipe.tap["use_copy"] = False
    plain = {
        f"public-{table}": INCREMENTAL
        for table in tables
        if table not in {"by_array", "by_float", "by_timestamptz", "by_jsonb", "as_numbers", "as_json"}
    }
    pipe.sync(plain, state).ok()
    assert {table: pipe.rows(written.format(table)) for table in tables} == after


def test_generated_and_identity_columns_become_plain_ones_and_dropped_ones_are_left_out(pipe):
    with pipe.source() as connection:
        virtual = "total numeric generated always as (price * 2) virtual," if version(connection) >= 18 else ""
    pipe.do(
        f"""
        create table items (
            gone_first int, id int generated always as identity primary key, gone text, price numeric not null
            default 5,
            {virtual} twice numeric generated always as (price * 2) stored, n serial, gone_last text,
            updated_at timestamptz default now()
        );
        insert into items (price) values (1.50), (2);
        alter table items drop column gone_first, drop column gone, drop column gone_last;
        alter table items add column late text default 'was there before'
        """
    )
    state = pipe.sync({"public-items": INCREMENTAL}).ok().state
    pipe.do("update items set price = 3, updated_at = now() where id = 2; insert into items (price) values (4)")
    pipe.sync({"public-items": INCREMENTAL}, state).ok()
    query = "select id, price::text, twice::text, n, late from {} order by id"
    with pipe.source() as connection:
        assert pipe.rows(query.format("raw.items")) == connection.execute(query.format("items")).fetchall()
    if virtual:
        assert pipe.rows("select total::text from raw.items order by id") == [("3.00",), ("6",), ("8",)]
    assert pipe.rows(
        "select count(*) filter (where attname ~ 'gone'), count(*) filter (where attgenerated <> ''), "
        "count(*) filter (where attidentity <> ''), count(*) filter (where atthasdef) "
        "from pg_attribute where attrelid = 'raw.items'::regclass and attnum > 0"
    ) == [(0, 0, 0, 0)]
