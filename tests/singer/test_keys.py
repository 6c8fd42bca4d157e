"""Replication keys that are not times: whatever their values are, later rows are read."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tests.singer.sample import version

if TYPE_CHECKING:
    from tests.singer.conftest import Pipe

SENTINEL = 2**63 - 1
# the key's type, a first value, a later value
ORDERED = {
    "smallint": ("1", "2"),
    "numeric": ("1.5", "1.50001"),
    "double precision": ("-1", "0"),
    "money": ("99", "1234567.5"),
    "oid": ("4000000000", "4100000000"),
    "xid8": ("77", "78"),
    "pg_lsn": ("0/1", "1/0"),
    "inet": ("10.0.0.1/8", "10.0.0.2/8"),
    "macaddr": ("08:00:2b:01:02:03", "08:00:2b:01:02:04"),
    "character(4)": ("ab", "ac"),
    'text collate "C"': ('it\'s \\ "é" %s {x}', "zz\\n"),
    "name": ("a", "b"),
    "interval": ("1 mon -3 days 04:05:06.789", "2 mon"),
    "time": ("00:00", "24:00"),
    "uuid": ("0" * 32, "1" + "0" * 31),
    "bytea": ("\\x00ff", "\\x01"),
    "bit(3)": ("001", "010"),
    "boolean": ("false", "true"),
    "level": ("low", "high"),
    "label": ("a", "b"),
    "int4range": ("[1,3)", "[2,3)"),
    "integer[]": ("{1,2}", "{1,3}"),
    "jsonb": ("1", "2"),
    "tsvector": ("a", "b"),
}


def by(key: str) -> dict[str, str]:
    return {"replication-method": "INCREMENTAL", "replication-key": key}


def warnings(log: str) -> list[str]:
    return [line for line in log.splitlines() if "| WARNING" in line]


def ids(pipe: Pipe, table: str) -> list[int]:
    return [row[0] for row in pipe.rows(f"select id from raw.{table} order by id")]


def there(pipe: Pipe, table: str) -> list[int]:
    with pipe.source() as connection:
        return [row[0] for row in connection.execute(f"select id from {table} order by id").fetchall()]


def bookmark(state: dict[str, Any], table: str) -> str | None:
    return state["bookmarks"][f"public-{table}"]["replication_key_value"]


@pytest.mark.long
def test_a_key_of_any_ordered_type_works_and_older_state_is_accepted(pipe):
    pipe.do("create type level as enum ('low', 'mid', 'high'); create domain label as text")
    with pipe.source() as connection:
        # with this setting, drivers escape backslashes differently
        connection.execute(f"alter database {connection.info.dbname} set standard_conforming_strings = off")
    tables = {f"t{number}": type_ for number, type_ in enumerate(ORDERED)}
    for table, type_ in tables.items():
        pipe.do(f"create table {table} (id int primary key, rev {type_})")
        with pipe.source() as connection:
            connection.execute(f"insert into {table} values (1, %s), (0, null)", [ORDERED[type_][0]])
    streams = {f"public-{table}": by("rev") for table in tables}
    catalog = pipe.catalog(streams)
    pipe.patches = ["no lookback"]
    pipe.tap["lookback_seconds"] = 0
    first = pipe.sync(catalog).ok()
    for table, type_ in tables.items():
        with pipe.source() as connection:
            connection.execute(f"insert into {table} values (2, %s)", [ORDERED[type_][1]])
    second = pipe.sync(catalog, first.state).ok()
    assert not [type_ for table, type_ in tables.items() if ids(pipe, table) != [0, 1, 2]]
    # the warehouse does not know the order of texts, but it knows that it had this bookmark before
    assert all(bookmark(first.state, table) != bookmark(second.state, table) for table in tables)
    pipe.sync(catalog, first.state).ok()
    third = pipe.sync(catalog, second.state).ok()
    assert not [
        type_ for table, type_ in tables.items() if bookmark(third.state, table) != bookmark(second.state, table)
    ]


def test_rows_with_minus_infinity_as_key_are_read_at_each_run(pipe):
    kinds = {
        "instants": ("timestamptz", "2026-01-01"),
        "locals": ("timestamp(3)", "2026-01-01"),
        "dates": ("date", "2026-01-01"),
        "numbers": ("numeric", "7"),
        "floats": ("float8", "7"),
        "spans": ("interval", "7 days"),
    }
    with pipe.source() as connection:
        if version(connection) < 17:
            del kinds["spans"]
        if version(connection) < 14:
            del kinds["numbers"]
    pipe.do("create domain finite as float8 check (value is not null)")
    kinds["domained"] = ("finite", "7")
    for table, (type_, value) in kinds.items():
        pipe.do(f"create table {table} (id int primary key, rev {type_} not null)")
        pipe.do(f"insert into {table} values (1, '{value}')")
    catalog = pipe.catalog({f"public-{table}": by("rev") for table in kinds})
    pipe.tap["timestamp_timezone"] = "UTC"
    state = pipe.sync(catalog).ok().state
    # the second run records what it saw, and the third uses that as its bookmark
    state = pipe.sync(catalog, state).ok().state
    for table in kinds:
        pipe.do(f"insert into {table} values (2, '-infinity')")
    pipe.sync(catalog, state).ok()
    assert not [table for table in kinds if ids(pipe, table) != there(pipe, table)]


def test_maximum_values_are_read_at_each_run_and_never_become_the_bookmark(pipe):
    kinds = {
        "bigint_max": ("bigint", [str(SENTINEL)], "3"),
        "int_max": ("integer", ["2147483647"], "3"),
        "nines": ("bigint", ["999999999"], "3"),
        "numbers": ("numeric", ["NaN", "Infinity"], "3"),
        "floats": ("float8", ["NaN", "Infinity", "-Infinity"], "3"),
        "words": ("text", ["zzzz"], "c"),
        "spans": ("interval", ["infinity"], "3"),
        "money": ("numeric(12,2)", ["9999999999.99"] * 1200, "3"),
        # more rows than the bookmark's distance
        "many": ("bigint", ["77777"] * 1200, "3"),
    }
    with pipe.source() as connection:
        if version(connection) < 17:
            # this version has no infinite intervals
            del kinds["spans"]
    for table, (type_, extremes, _) in kinds.items():
        pipe.do(f"create table {table} (id int primary key, rev {type_}, note text)")
        low = ["a", "b"] if type_ == "text" else ["1", "2"]
        with pipe.source() as connection, connection.cursor() as cursor:
            cursor.executemany(
                f"insert into {table} values (%s, %s, 'old')", list(enumerate([*low, *extremes], start=1))
            )
    catalog = pipe.catalog({f"public-{table}": by("rev") for table in kinds})
    first = pipe.sync(catalog).ok()
    warned = "\n".join(warnings(first.tap_log))
    assert f"rev of public-bigint_max holds {SENTINEL}, which no later value exceeds" in warned
    assert "rev of public-numbers holds NaN, Infinity" in warned
    assert "public-many" not in warned
    for table, (_, _, later) in kinds.items():
        pipe.do(f"insert into {table} values (9000, '{later}', 'new')")
        pipe.do(f"update {table} set note = 'changed' where id = 3")
    pipe.tap["lookback_seconds"] = 5
    second = pipe.sync(catalog, first.state).ok()
    for table in kinds:
        assert ids(pipe, table) == there(pipe, table), table
        assert pipe.rows(f"select note from raw.{table} where id = 3") == [("changed",)], table
    assert bookmark(second.state, "nines") in {"1", "2"}
    # an earlier release made such a value the bookmark and missed the rows below it
    second.state["bookmarks"]["public-bigint_max"] |= {"replication_key_value": str(SENTINEL), "key_trail": []}
    with pipe.warehouse() as connection:
        connection.execute("delete from raw.bigint_max where id = 9000")
        connection.execute("update raw._tidemark_state set bookmark = %s where stream ~ 'bigint_max'", [str(SENTINEL)])
    third = pipe.sync(catalog, second.state).ok()
    assert "Reading public-bigint_max from its beginning" in third.tap_log
    assert 9000 in ids(pipe, "bigint_max")


def test_restarted_values_are_read_from_the_beginning_and_deleted_rows_are_not_mistaken_for_a_restart(pipe):
    tables = [
        "restarted",
        "refilled",
        "set_back",
        "wound_back",
        "island",
        "own_numbers",
        "emptied",
        "deleted",
        "hidden",
    ]
    tables += ["other_default", "computed"]
    for table in tables:
        default = "" if table in {"own_numbers", "hidden"} else "generated by default as identity"
        type_ = "bigserial" if table in {"other_default", "computed"} else f"bigint {default}"
        pipe.do(f"create table {table} (id {type_} primary key, note text)")
        pipe.do(f"insert into {table} (id, note) select n, 'old' from generate_series(1, 3000) n")
        if default:
            pipe.do(f"select setval(pg_get_serial_sequence('{table}', 'id'), 3000)")
    # too many rows to read at each run, but a row from the sequence is not missed
    pipe.do("insert into island (id, note) select n, 'imported' from generate_series(1000001, 1102000) n")
    # neither column is filled by the sequence that it owns
    pipe.do("create sequence other start 3001; create sequence wide")
    pipe.do("alter table other_default alter id set default nextval('other')")
    pipe.do("alter table computed alter id set default 1000000 * 1024 + nextval('wide') % 1024")
    catalog = pipe.catalog({f"public-{table}": by("id") for table in tables})
    # the bookmarks are at the end already
    pipe.patches = ["no lookback"]
    first = pipe.sync(catalog).ok()
    pipe.patches = []
    (warning,) = warnings(first.tap_log)
    assert "goes up to 1102000, and public.island_id_seq, which fills it, has only reached 3000" in warning
    pipe.do("truncate restarted restart identity; insert into restarted (note) values ('new')")
    # already past the bookmark
    pipe.do("truncate refilled restart identity")
    pipe.do("insert into refilled (note) select 'new' from generate_series(1, 5000)")
    pipe.do("truncate wound_back; select setval('wound_back_id_seq', 1, false)")
    pipe.do("insert into wound_back (note) select 'new' from generate_series(1, 5000)")
    pipe.do("insert into other_default (note) values ('new'); insert into computed (note) values ('new')")
    pipe.do("delete from set_back where id > 10; select setval('set_back_id_seq', 10)")
    pipe.do("insert into set_back (note) values ('new'); insert into island (note) values ('new')")
    pipe.do("truncate own_numbers; insert into own_numbers select n, 'new' from generate_series(1, 5000) n")
    pipe.do("truncate emptied")
    pipe.do("delete from deleted where id > 500")
    pipe.do("delete from hidden where id > 500")
    second = pipe.sync(catalog, first.state).ok()
    begun = {table for table in tables if f"Reading public-{table} from its beginning" in second.tap_log}
    assert begun == {"restarted", "refilled", "set_back", "wound_back", "own_numbers", "emptied", "hidden"}
    pipe.do("insert into emptied (note) values ('new'); insert into deleted (note) values ('new')")
    third = pipe.sync(catalog, second.state).ok()
    assert "from its beginning" not in third.tap_log
    for table in tables:
        assert set(there(pipe, table)) <= set(ids(pipe, table)), table
        with pipe.source() as connection:
            new = connection.execute(f"select count(*) from {table} where note = 'new'").fetchall()
        assert pipe.rows(f"select count(*) from raw.{table} where note = 'new'") == new, table
    fourth = pipe.sync(catalog, third.state).ok()
    assert "from its beginning" not in fourth.tap_log


def test_a_value_drawn_before_its_transaction_began_is_not_missed(pipe):
    pipe.do("create table drawn (id bigint generated by default as identity primary key, note text)")
    pipe.do("create table stamped (id int primary key, updated_ms bigint, note text)")
    pipe.do("insert into drawn (note) select 'old' from generate_series(1, 5000)")
    now = "(extract(epoch from clock_timestamp()) * 1000)::bigint"
    pipe.do(f"insert into stamped select n, {now} - 10000000 + n, 'old' from generate_series(1, 5000) n")
    catalog = pipe.catalog({"public-drawn": by("id"), "public-stamped": by("updated_ms")})
    state = pipe.sync(catalog).ok().state
    with pipe.source() as connection:
        drawn = connection.execute("select nextval('drawn_id_seq')").fetchone()[0]
        stamp = connection.execute(f"select {now}").fetchone()[0]
    # more than the bookmark's distance
    pipe.do("insert into drawn (note) select 'newer' from generate_series(1, 3000)")
    pipe.do(f"insert into stamped select n, {now} + n, 'newer' from generate_series(5001, 8000) n")
    state = pipe.sync(catalog, state).ok().state
    pipe.do(f"insert into drawn values ({drawn}, 'late'); insert into stamped values (9999, {stamp}, 'late')")
    state = pipe.sync(catalog, state).ok().state
    for table in ("drawn", "stamped"):
        assert pipe.rows(f"select count(*) from raw.{table} where note = 'late'") == [(1,)]
    # after one lookback, what a run saw becomes the bookmark
    pipe.patches = ["no lookback"]
    pipe.tap["lookback_seconds"] = 0
    state = pipe.sync(catalog, state).ok().state
    assert int(bookmark(state, "drawn")) == drawn + 3000
    assert state["bookmarks"]["public-drawn"]["key_trail"][0] == []


@pytest.mark.parametrize(
    "type_", ["json", *(pytest.param(type_, marks=pytest.mark.long) for type_ in ("xid", "point"))]
)
def test_a_key_without_an_order_is_refused_in_one_line(pipe, type_):
    pipe.do(f"create table a (id int primary key, rev {type_})")
    error = pipe.sync({"public-a": by("rev")}).refused("replication_key_unusable")
    assert f"replication key rev is of type {type_}, whose values have no order: choose a timestamp" in error


def test_a_sequence_that_counts_down_is_refused(pipe):
    pipe.do("create table a (id int generated by default as identity (increment -1) primary key)")
    error = pipe.sync({"public-a": by("id")}).refused("replication_key_unusable")
    assert "public.a_id_seq, which fills replication key id of public-a, counts down" in error
