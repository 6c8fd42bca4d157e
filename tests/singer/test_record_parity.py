"""RECORD messages of this tap compared with those of the MeltanoLabs tap, value by value."""

from __future__ import annotations

import json
import subprocess
from typing import TYPE_CHECKING, Any

import pytest

from tests.programs import TAP
from tests.singer.conftest import FULL_TABLE
from tests.singer.sample import FIXED

if TYPE_CHECKING:
    from tests.singer.conftest import Pipe

# its script has the name of one of ours in the same environment
STOCK = [TAP.with_name("python"), "-c", "from tap_postgres.tap import TapPostgres; TapPostgres.cli()"]
SETUP = """
    create extension hstore; create extension citext; create type mood as enum ('glad');
    create type pair as (a int, b text); create domain price as numeric(10, 2);
"""
# type and value, and the value in a record
ALIKE: dict[str, tuple[str, Any]] = {
    "smallint": ("1", 1),
    "bigint": ("9007199254740993", 9007199254740993),
    "real": ("1.1", 1.1),
    "double precision": ("0.30000000000000004", 0.30000000000000004),
    "numeric": ("12.50", 12.5),
    "boolean": ("t", True),
    "text": ('a "b" é', 'a "b" é'),
    "varchar(10)": ("v", "v"),
    "character(5)": ("ab", "ab   "),
    "name": ("n", "n"),
    "date": ("2026-01-02", "2026-01-02"),
    "time": ("06:04:19.222", "06:04:19.222000"),
    "time(0)": ("06:04:19", "06:04:19"),
    "timetz": ("06:04:19.222+02", "06:04:19.222000+02:00"),
    "timestamp": ("2026-01-02 03:04:05.6", "2026-01-02T03:04:05.600000+00:00"),
    "timestamptz": ("2026-01-02 03:04:05+02", "2026-01-02T01:04:05.000000+00:00"),
    "uuid": ("00000000-0000-0000-0000-000000000001", "00000000-0000-0000-0000-000000000001"),
    "json": ('{"a": 1.5}', {"a": 1.5}),
    "jsonb": ('{"a": [1, null]}', {"a": [1, None]}),
    "bit(3)": ("101", "101"),
    "inet": ("10.0.0.1/8", "10.0.0.1/8"),
    "macaddr": ("08:00:2b:01:02:03", "08:00:2b:01:02:03"),
    "money": ("1234.5", "$1,234.50"),
    "point": ("(1,2)", "(1,2)"),
    "int4range": ("[1,5)", "[1,5)"),
    "hstore": ("a=>1, b=>NULL", {"a": "1", "b": None}),
    "hstore[]": ('{"a=>1"}', [{"a": "1"}]),
    "citext": ("CiText", "CiText"),
    "mood": ("glad", "glad"),
    "pair": ("(1,x)", "(1,x)"),
    "price": ("2.5", 2.5),
    "tsvector": ("a:1 b", "'a':1 'b'"),
    "pg_lsn": ("16/B374D848", "16/B374D848"),
    "int[]": ("{1,2}", [1, 2]),
    "text[]": ('{a,"b c"}', ["a", "b c"]),
    "date[]": ("{2026-01-02}", ["2026-01-02"]),
    "jsonb[]": ('{"{\\"a\\": 1}"}', [{"a": 1}]),
}
# here ours is PostgreSQL's own text; the other tap loses months, writes bytes that can't be read back, or fails
OURS: dict[str, tuple[str, Any]] = {
    "interval": ("1 mon 2 days 03:04:05.6", "1 mon 2 days 03:04:05.6"),
    "bytea": ("\\x00ff", "\\x00ff"),
    "tstzrange": ("[2026-01-01 00:00:00+00,)", '["2026-01-01 00:00:00+00",)'),
    "timestamp[]": ('{"2026-01-02 03:04:05.6"}', ["2026-01-02 03:04:05.6"]),
    "time[]": ("{06:04:19.222}", ["06:04:19.222"]),
    "interval[]": ('{"1 day"}', ["1 day"]),
}


def _run(command: list[Any]) -> subprocess.CompletedProcess[str]:
    # the stock tap is not among the programs that can be forked
    return subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False, timeout=120)


def records(pipe: Pipe, tap: list[Any]) -> dict[str, Any]:
    """Return a tap's records of the table, by type."""
    config, _ = pipe.configs()
    settings = {name: value for name, value in json.loads(config.read_text()).items() if name != "chunk_dir"}
    config.write_text(json.dumps({**settings, "use_copy": False}))
    if tap == [TAP]:
        catalog = pipe.catalog({"public-every": FULL_TABLE})
    else:
        catalog = json.loads(_run([*tap, "--config", config, "--discover"]).stdout)
        for entry in catalog["streams"][0]["metadata"]:
            entry["metadata"]["selected"] = True
    done = _run([*tap, "--config", config, "--catalog", pipe._file("catalog.json", catalog)])
    assert done.returncode == 0, done.stderr
    (record,) = [each["record"] for each in map(json.loads, done.stdout.splitlines()) if each["type"] == "RECORD"]
    return {type_: record[f"c{number}"] for number, type_ in enumerate({**ALIKE, **OURS})}


@pytest.fixture
def every(pipe: Pipe) -> Pipe:
    types = {**ALIKE, **OURS}
    columns = ", ".join(f"c{number} {type_}" for number, type_ in enumerate(types))
    pipe.tap["use_copy"] = False
    with pipe.source(options=FIXED.replace("search_path=", "search_path=public")) as connection:
        connection.execute(SETUP)
        connection.execute(f"create table every (id int primary key, {columns})")
        connection.execute(
            f"insert into every values (1, {', '.join(['%s'] * len(types))})", [value for value, _ in types.values()]
        )
    return pipe


def test_records_have_the_same_values_as_those_of_other_taps(every):
    expected = {type_: record for type_, (_, record) in {**ALIKE, **OURS}.items()}
    assert records(every, [TAP]) == expected


@pytest.mark.long
def test_records_equal_those_of_the_meltanolabs_tap_except_where_it_loses_something(every):
    ours, stock = records(every, [TAP]), records(every, STOCK)
    assert {type_ for type_ in ours if ours[type_] != stock[type_]} == set(OURS)


@pytest.mark.parametrize("known", [True, False], ids=["extension", "no extension"])
def test_an_hstore_is_the_same_from_records_and_from_chunks(pipe, known):
    pipe.do("create extension hstore; create table a (id int primary key, h hstore, hs hstore[])")
    pipe.do("""insert into a values (1, '"a\\"b"=>"c\\\\d", n=>NULL', array['x=>1'::hstore]), (2, '', '{}')""")
    if known:
        with pipe.warehouse() as connection:
            connection.execute("create extension hstore")
    catalog = pipe.catalog({"public-a": FULL_TABLE})
    seen = []
    for use_copy in (True, False, True):
        pipe.tap["use_copy"] = use_copy
        pipe.sync(catalog).ok()
        seen.append(pipe.rows("select id, h::text, hs::text, pg_typeof(h)::text from raw.a order by id"))
    assert seen[0][0][1] == '"n"=>NULL, "a\\"b"=>"c\\\\d"'
    assert seen[0] == seen[1] == seen[2]
    assert seen[0][0][3] == ("hstore" if known else "text")
