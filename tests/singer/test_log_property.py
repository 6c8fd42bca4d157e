"""Random transactions on tables of many kinds: after each run, the warehouse has their rows and their history."""

from __future__ import annotations

import os
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import psycopg
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.singer.test_log_based import SLOT, follow, log_pipe, publish, same  # noqa: F401 - a fixture

if TYPE_CHECKING:
    from tests.singer.conftest import Pipe

EXAMPLES = int(os.environ.get("EXAMPLES", "2"))
KEYS = st.integers(1, 8)
# some are TOASTed: stored apart, and not in the log if they did not change
TEXTS = st.one_of(
    st.just("null"),
    st.sampled_from(["''", "'x'", "E'tab\\t'"]),
    st.builds("repeat('{}', {})".format, st.integers(0, 99), st.sampled_from([3000, 9000])),
)
# what creates each table, its key column, and the values of a row and of a change of it
TABLES = {
    "wide": (
        (
            "create table wide (id int primary key, a text, b text, n numeric);"
            "alter table wide alter a set storage external, alter b set storage external"
        ),
        "id",
        st.builds("{}, {}, 1.50".format, TEXTS, TEXTS),
        st.one_of(st.builds("a = {}".format, TEXTS), st.just("n = n + 1")),
    ),
    # a key of two columns, of which one is text
    "pairs": (
        "create table pairs (k int, part text, a text, v int, primary key (part, k))",
        "k",
        st.builds("'{}', {}, 1".format, st.sampled_from("ab"), TEXTS),
        st.one_of(st.builds("a = {}".format, TEXTS), st.builds("part = '{}'".format, st.sampled_from("ab"))),
    ),
    # all old values are in the log
    "whole": (
        "create table whole (id int not null unique, a text, v jsonb); alter table whole replica identity full",
        "id",
        st.builds("{}, '{{}}'".format, TEXTS),
        st.one_of(st.builds("a = {}".format, TEXTS), st.just("v = '[1]'")),
    ),
    # another index than that of the primary key identifies rows
    "indexed": (
        (
            "create table indexed (id int primary key, code text not null, a text);"
            "create unique index by_code on indexed (id, code);"
            "alter table indexed replica identity using index by_code"
        ),
        "id",
        st.builds("'c{}', {}".format, KEYS, TEXTS),
        st.one_of(st.builds("a = {}".format, TEXTS), st.builds("code = 'c{}'".format, KEYS)),
    ),
    # rows move between partitions
    "parts": (
        (
            "create table parts (id int, day int, a text, primary key (id, day)) partition by list (day);"
            "create table parts_1 partition of parts for values in (1, 2);"
            "create table parts_3 partition of parts default"
        ),
        "id",
        st.builds("{}, {}".format, st.integers(1, 4), TEXTS),
        st.one_of(st.builds("a = {}".format, TEXTS), st.builds("day = {}".format, st.integers(1, 4))),
    ),
}
# a change of each table, so that the log tells of its columns
TOUCHES = {
    "wide": "insert into wide (id) values (99); delete from wide where id = 99",
    "pairs": "insert into pairs (k, part) values (99, 'z'); delete from pairs where k = 99",
    "whole": "insert into whole (id) values (99); delete from whole where id = 99",
    "indexed": "insert into indexed (id, code) values (99, 'z'); delete from indexed where id = 99",
    "parts": "insert into parts (id, day) values (99, 99); delete from parts where id = 99",
}
# Columns get names that no column had before. One that exists is picked by a number.
ALTERS = {
    "add": "execute format('alter table {table} add x_%s int default {number}', nextval('names'))",
    "add text": "execute format('alter table {table} add x_%s text', nextval('names'))",
    "rename": "execute format('alter table {table} rename %I to x_%s', name, nextval('names'))",
    "drop column": "execute format('alter table {table} drop %I', name)",
    "set": "execute format('update {table} set %I = ''{number}'' where {key} >= {number}', name)",
}
ALTER = """
    do $$ declare name text; begin
        select attname into name from pg_attribute
        where attrelid = '{table}'::regclass and attname ~ '^x_' and not attisdropped
        order by (attnum * 7 + {number}) % 5, attnum limit 1;
        if name is not null or {is_new} then {alter}; end if;
    end $$
"""

# the columns of keys, and all others
COLUMNS = {
    "wide": (["id"], ["a", "b", "n"]),
    "pairs": (["part", "k"], ["a", "v"]),
    "whole": (["id"], ["a", "v"]),
    "indexed": (["id"], ["code", "a"]),
    "parts": (["id", "day"], ["a"]),
}
Rows = dict[tuple[Any, ...], tuple[Any, ...]]


def loaded(pipe: Pipe, table: str) -> Rows:
    """Return the warehouse's rows of a table, by key."""
    key, others = COLUMNS[table]
    return {row[: len(key)]: row for row in pipe.rows(f"select {', '.join([*key, *others])} from raw.{table}")}


def replayed(pipe: Pipe, table: str, rows: Rows) -> Rows:
    """Return what the history of a table makes of the rows with which it begins."""
    key, others = COLUMNS[table]
    rows = dict(rows)
    for operation, *values in pipe.rows(
        f"select _tidemark_operation, {', '.join([*key, *others])} from raw.{table}_changes "
        "order by _sdc_lsn, _tidemark_number"
    ):
        row = tuple(values)
        of = row[: len(key)]
        if operation == "truncate":
            rows.clear()
        elif operation == "delete":
            del rows[of]
        elif operation != "begin":
            assert (operation == "update") == (of in rows), (table, operation, of)
            rows[of] = row
    return rows


@st.composite
def statements(draw: st.DrawFn) -> str:
    """Draw a statement that changes a table."""
    table = draw(st.sampled_from(list(TABLES)))
    _, key, values, changes = TABLES[table]
    number = draw(KEYS)
    kinds = ["insert"] * 3 + ["update"] * 3 + ["change all", "move", "move", "delete", "truncate", "set", "set"]
    kind = draw(st.sampled_from([*kinds, *ALTERS]))
    if kind in ALTERS:
        alter = ALTERS[kind].format(table=table, key=key, number=number)
        return ALTER.format(table=table, number=number, is_new=kind.startswith("add"), alter=alter)
    if kind == "insert":
        return f"insert into {table} values ({number}, {draw(values)}) on conflict do nothing"
    if kind == "move":
        other = draw(KEYS)
        return f"update {table} set {key} = {other}, a = {draw(st.sampled_from(['a', 'null']))} where {key} = {number}"
    if kind == "delete":
        return f"delete from {table} where {key} = {number}"
    if kind == "truncate":
        return f"truncate {table}"
    return f"update {table} set {draw(changes)} where {key} {'>=' if kind == 'change all' else '='} {number}"


@st.composite
def transactions(draw: st.DrawFn) -> list[str]:
    """Draw the statements of a transaction."""
    made = draw(st.lists(statements(), min_size=1, max_size=6))
    if draw(st.integers(0, 5)) == 0:
        made[0] = f"savepoint s; {made[0]}; rollback to savepoint s"
    return ["begin", *made, draw(st.sampled_from(["commit"] * 7 + ["rollback"]))]


@settings(
    max_examples=EXAMPLES,
    deadline=None,
    derandomize=EXAMPLES < 10,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(rounds=st.lists(st.lists(transactions(), min_size=1, max_size=12), min_size=3, max_size=5))
def test_after_random_transactions_the_warehouse_has_the_sources_rows(log_pipe, rounds):  # noqa: F811
    pipe = log_pipe
    pipe.do(
        f"select pg_drop_replication_slot(slot_name) from pg_replication_slots where slot_name = '{SLOT}' "
        "and database = current_database()"
    )
    pipe.do(f"drop publication if exists {SLOT}; drop table if exists {', '.join(TABLES)}")
    with pipe.warehouse() as connection:
        connection.execute("drop schema if exists raw cascade")
    pipe.do("create sequence if not exists names")
    for create, *_ in TABLES.values():
        pipe.do(create)
    publish(pipe, *TABLES)
    pipe.state, first = None, {}
    pipe.tap["change_history"] = [f"public-{table}" for table in TABLES]
    for made in rounds:
        for transaction in made:
            with pipe.source() as connection, suppress(psycopg.errors.UniqueViolation):
                # a row that moves may meet another; that transaction leaves nothing
                for statement in transaction:
                    connection.execute(statement.encode())
        pipe.do(";".join(TOUCHES.values()))
        follow(pipe, *TABLES)
        doubts = {stream for (stream,) in pipe.rows("select stream from raw._tidemark_state where repair is not null")}
        certain = [table for table in TABLES if f"public-{table}" not in doubts]
        assert [table for table in certain if not same(pipe, table)] == []
        first = first or {table: loaded(pipe, table) for table in TABLES}
        assert [table for table in certain if replayed(pipe, table, first[table]) != loaded(pipe, table)] == []
