"""Names that PostgreSQL allows are never misread, cut or confused with another."""

from __future__ import annotations

import json
import subprocess

import psycopg
import pytest
from psycopg import sql

from tests.programs import TAP
from tests.singer.conftest import FULL_TABLE, INCREMENTAL

NAMES = (
    *(
        "order",
        "select",
        "user",
        "MixedCase",
        "UPPER",
        "with space",
        " ",
        "dash-ed",
        "-",
        "dot.ted",
        ".",
        'quo"te',
        '"',
    ),
    *(
        "apo'strophe",
        "per%cent",
        "%s",
        "%(x)s",
        "%%",
        "{brace}",
        "{0}",
        "{}",
        "back\\slash",
        "\\",
        "ünïcode",
        "🐘",
        "\u202e",
    ),
    *(
        "e\u0301",
        "x" * 63,
        "é" * 31 + "x",
        "tab\tname",
        "new\nline",
        "\r",
        "$1",
        ":colon",
        "1digit",
        "t",
        "s",
        "excluded",
    ),
    *(
        "selected",
        "records",
        "*",
        "a,b",
        "(",
        ";--",
        "/*",
        "[]",
        "!",
        "_sdc",
        "id[1]",
        "raw",
        "null",
        "\x7f",
        "~`@#^&=+|<>?",
    ),
)


def identifier(*parts: str) -> str:
    return sql.Identifier(*parts).as_string()


def columns(connection: psycopg.Connection, *table: str) -> list[str]:
    rows = connection.execute(
        "select attname from pg_attribute where attrelid = to_regclass(%s) and attnum > 0 order by attnum",
        [identifier(*table)],
    )
    return [name for (name,) in rows if not name.startswith(("_sdc_", "_tidemark"))]


@pytest.fixture
def named(pipe):
    """Tables with all names, in schemas with all names, with columns with all names."""
    tables = list(zip(NAMES, (*NAMES[1:], NAMES[0]), strict=True))
    with pipe.source() as connection:
        for number, (schema, table) in enumerate(tables):
            # each has other names for key and stamp
            ours = NAMES[number:] + NAMES[:number]
            parts = [f"{identifier(ours[0])} int", f"{identifier(ours[1])} timestamptz default now()"]
            parts += [f"{identifier(name)} text default 'of ' || quote_literal({number})" for name in ours[2:6]]
            parts += [f"primary key ({identifier(ours[0])}, {identifier(ours[2])})"]
            connection.execute(f"create schema {identifier(schema)}")
            connection.execute(f"create table {identifier(schema, table)} ({', '.join(parts)})")
            connection.execute(f"insert into {identifier(schema, table)} values (1), (2)")
    pipe.tap["filter_schemas"] = list(NAMES)
    pipe.target["default_target_schema"] = None
    return pipe, tables


@pytest.mark.parametrize(
    "use_copy", [pytest.param(True, id="chunks"), pytest.param(False, id="records", marks=pytest.mark.long)]
)
def test_schemas_tables_keys_and_columns_keep_their_names(named, use_copy):
    pipe, tables = named
    pipe.tap["use_copy"] = use_copy
    streams = {}
    if use_copy:
        # see test_a_schema_with_a_percent_sign_works_like_others
        tables = [names for names in tables if "%" not in names[0]]
    else:
        # a record has only the stream's name, which the SDK splits at dashes
        tables = [names for names in tables if "-" not in "".join(names)]
    for schema, table in tables:
        number = NAMES.index(schema)
        stamp = (NAMES[number:] + NAMES[:number])[1]
        keyed = {"replication-method": "INCREMENTAL", "replication-key": stamp}
        streams[f"{schema}-{table}"] = keyed if number % 3 else FULL_TABLE
    catalog = pipe.catalog(streams)
    state = pipe.sync(catalog).ok().state
    with pipe.source() as source:
        for schema, table in tables:
            number = NAMES.index(schema)
            note = identifier((NAMES[number:] + NAMES[:number])[5])
            source.execute(f"update {identifier(schema, table)} set {note} = 'new' where ctid = '(0,1)'")
    pipe.sync(catalog, state).ok()
    with pipe.source() as source, pipe.warehouse() as warehouse:
        for schema, table in tables:
            names = columns(source, schema, table)
            assert columns(warehouse, schema, table) == names
            query = f"select {', '.join(map(identifier, names))} from {identifier(schema, table)} order by 1"
            there, here = source.execute(query).fetchall(), warehouse.execute(query).fetchall()
            assert there == here
            assert len(there) == 2


def test_a_schema_with_a_percent_sign_works_like_others(pipe):
    pipe.do("create table a (id int primary key); insert into a values (1)")
    pipe.target["default_target_schema"] = "100%"
    pipe.sync({"public-a": FULL_TABLE}).ok()
    assert pipe.rows('select id from "100%".a') == [(1,)]


@pytest.mark.long
def test_a_table_with_1590_columns_is_loaded_and_one_with_1600_is_refused(pipe):
    for name, count in [("wide", 1590), ("widest", 1600)]:
        parts = ", ".join(f"c{n} {'numeric(12,2)' if n % 400 == 0 else 'int'} default {n % 9}" for n in range(2, count))
        pipe.do(f"create table {name} (id int primary key, {parts}, updated_at timestamptz default now())")
    pipe.do("insert into wide (id) values (1), (2), (3); insert into widest (id) values (1)")
    pipe.do("create table wide_whole as table wide")
    streams = {"public-wide": INCREMENTAL, "public-wide_whole": FULL_TABLE}
    state = pipe.sync(streams).ok().state
    pipe.do("update wide set c1589 = 77 where id = 2; update wide_whole set c1589 = 77 where id = 2")
    pipe.sync(streams, state).ok()
    for table in ("wide", "wide_whole"):
        assert pipe.rows(f"select id, c2, c1589 from raw.{table} order by id") == [(1, 2, 5), (2, 2, 77), (3, 2, 5)]
        assert pipe.rows(f"select count(distinct _tidemark_loaded_xid) from raw.{table}") == [(1 + (table == "wide"),)]
    error = pipe.sync({"public-widest": FULL_TABLE}).refused("limit_exceeded")
    assert "public.widest has 1,600 selected columns" in error


@pytest.mark.long
def test_a_raw_table_that_used_up_its_columns_can_be_loaded_again_as_the_error_says(pipe):
    pipe.do("create table a (id int primary key, updated_at timestamptz default now()); insert into a values (1)")
    state = pipe.sync({"public-a": INCREMENTAL}).ok().state
    with pipe.warehouse() as connection:
        for _ in range(2):
            connection.execute(f"alter table raw.a {', '.join(f'add x{n} int' for n in range(793))}")
            connection.execute(f"alter table raw.a {', '.join(f'drop x{n}' for n in range(793))}")
    pipe.do(f"alter table a {', '.join(f'add y{n} int default {n}' for n in range(9))}; insert into a values (2)")
    error = pipe.sync({"public-a": INCREMENTAL}, state).refused("limit_exceeded")
    assert "tables can have at most 1600 columns" in error
    assert "dropped columns count too" in error
    with pipe.warehouse() as connection:
        connection.execute("alter table raw.a rename to before")
    pipe.sync({"public-a": INCREMENTAL}).ok()
    assert pipe.rows("select id, y8 from raw.a order by id") == [(1, 8), (2, 8)]


def test_a_view_with_a_system_columns_name_is_refused_with_that_name(pipe):
    pipe.do("create table a (id int primary key); insert into a values (1); create view b as select id, xmin from a")
    assert '"xmin" conflicts with a system column name' in pipe.sync({"public-b": FULL_TABLE}).refused("name_taken")
    pipe.sync({"public-b": {**FULL_TABLE, "select": ["id"]}}).ok()


def test_a_column_with_the_name_of_a_metadata_column_is_refused(pipe):
    pipe.do("create table a (id int primary key, _sdc_sequence int)")
    assert "public.a has a column _sdc_sequence" in pipe.sync({"public-a": FULL_TABLE}).refused("name_taken")


@pytest.mark.parametrize("use_copy", [True, pytest.param(False, marks=pytest.mark.long)], ids=["chunks", "records"])
def test_a_source_that_is_itself_a_warehouse_does_not_overwrite_this_ones_own_tables(pipe, use_copy):
    ours = ["state", "runs", "rejects", "schema_changes", "reconciles", "models", "model_runs", "changes", "stage_1"]
    names = [f"_tidemark_{name}" for name in ours]
    pipe.do("; ".join(f"create table {name} (id int primary key); insert into {name} values (1)" for name in names))
    pipe.do("create table z_last (id int primary key); insert into z_last values (1)")
    pipe.sync({"public-z_last": FULL_TABLE}).ok()
    state = "select s.stream, s.table_name, s.shape is not null from raw._tidemark_state s"
    before = pipe.rows(state)
    pipe.tap["use_copy"] = use_copy
    pipe.do("insert into z_last values (2)")
    synced = pipe.sync({f"public-{name}": FULL_TABLE for name in [*names, "z_last"]})
    assert 1 in {synced.tap_status, synced.target_status}
    for name in names:
        assert f"public-{name} would be loaded into a table {name}, and names that begin with _tidemark_" in "".join(
            synced.errors
        )
    assert pipe.rows("select id from raw.z_last order by id") == [(1,), (2,)]
    assert pipe.rows(state) == before
    assert not pipe.rows("select 1 from pg_class where relname in ('_tidemark_models', '_tidemark_stage_1')")
    # a view with another name can be loaded
    pipe.do("create view other_state as select * from _tidemark_state")
    pipe.sync({"public-other_state": FULL_TABLE}).ok()


def test_two_tables_with_the_same_stream_name_are_not_confused(pipe):
    pipe.do('create schema "a-b"; create table "a-b".c (id int primary key); insert into "a-b".c values (1)')
    pipe.do('create schema a; create table a."b-c" (id int primary key); insert into a."b-c" values (2)')
    pipe.tap["filter_schemas"] = ["a", "a-b"]
    pipe.target["default_target_schema"] = None
    config, _ = pipe.configs()
    found = subprocess.run([TAP, "--config", config, "--discover"], capture_output=True, text=True, check=False)
    if found.returncode == 0:
        names = [stream["tap_stream_id"] for stream in json.loads(found.stdout)["streams"]]
        assert len(set(names)) == 2


@pytest.mark.parametrize("side", ["source", "warehouse"])
def test_text_and_names_survive_between_databases_with_different_encodings(pipe, side):
    whose = {"source": pipe.source_url, "warehouse": pipe.warehouse_url}[side]
    name = psycopg.conninfo.conninfo_to_dict(whose)["dbname"]
    with psycopg.connect(whose, dbname="postgres", autocommit=True) as connection:
        connection.execute(f"drop database {name}")
        connection.execute(f"create database {name} template template0 encoding latin1 locale 'C'")
        connection.execute(f"alter database {name} set client_encoding = latin1")
    with pipe.source(client_encoding="utf8") as connection:
        connection.execute("create type härte as enum ('weiß', 'übel')")
        connection.execute("create table straße (größe int primary key, name text, härte härte, js jsonb)")
        connection.execute("""insert into straße values (1, 'Ærøskøbing', 'weiß', '{"ñ": "ÿ"}')""")
    for use_copy in (True, False):
        pipe.tap["use_copy"] = use_copy
        pipe.sync({"public-straße": FULL_TABLE}).ok()
        with pipe.warehouse(client_encoding="utf8") as connection:
            rows = connection.execute("select größe, name, härte, js::text from raw.straße").fetchall()
        assert rows == [(1, "Ærøskøbing", "weiß", '{"ñ": "ÿ"}')]
    if side == "warehouse":
        with pipe.source(client_encoding="utf8") as connection:
            connection.execute("insert into straße values (2, '🐘')")
        pipe.tap["use_copy"] = True
        assert "has no equivalent in encoding" in pipe.sync({"public-straße": FULL_TABLE}).refused("encoding_invalid")
