"""Tables that are altered at random, between runs and during them, while rows come and go.

After one more run, raw equals the source. If that run is refused, raw equals the source after the error's advice.
Changes that no run can see (deleted rows, rows with an old stamp) are left out here; tests of `tidemark reconcile`
cover them.
"""

from __future__ import annotations

import os
import random
import re
import sys
import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import psycopg
from psycopg import sql

from tests.singer.advice import run_until_well
from tests.singer.conftest import FULL_TABLE, INCREMENTAL
from tests.singer.sample import FIXED

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.singer.conftest import Pipe, Synced

LONG = "CRASHES" in os.environ or "DRIFTS" in os.environ
DRIFTS = int(os.environ.get("DRIFTS", "500" if LONG else "4"))
SEED = int(os.environ.get("DRIFT_SEED", "0")) or random.SystemRandom().randrange(10**6)
TABLES = 8
_TYPES = {
    "int": ("7", "'3'::int"),
    "bigint": ("7000000000", "8"),
    "numeric(8,2)": ("1.50", "2"),
    "numeric(12,4)": ("2.2500",),
    "varchar(20)": ("'v'", "'longer'"),
    "text": ("'t'", "'a,b'"),
    "character(5)": ("'c'",),
    "timestamptz": ("now()", "'2026-01-01 00:00+02'"),
    "timestamp(3)": ("'2026-01-01 00:00:01.5'",),
    "date": ("'2026-02-03'",),
    "uuid": ("gen_random_uuid()", "'00000000-0000-0000-0000-000000000001'"),
    "box": ("'(3,4),(1,2)'",),
    "int[]": ("'{1,2}'",),
    "text[]": ("'{\"a,b\",NULL}'",),
    "jsonb": ("'{\"a\": [1]}'",),
    "int4range": ("'[1,5)'",),
    "pair": ("row(1, 'x')", "row(null, null)"),
    "mood": ("'ok'",),
    "boolean": ("true",),
    "double precision": ("random()", "0.1"),
}


@dataclass
class Fuzzed:
    """A table of the source, and its changes so far."""

    name: str
    chance: random.Random
    whole: bool
    partitioned: bool
    number: int = 0
    log: list[str] = field(default_factory=list)

    def make(self) -> list[str]:
        self.number += 1
        key = "(id, updated_at)" if self.partitioned else "(id)"
        part = " partition by range (updated_at)" if self.partitioned else ""
        made = [
            (
                f"create table {self.name} (id int not null, amount int, note varchar(10), price numeric(8,2), "
                f"updated_at timestamptz not null default now(), primary key {key}){part}"
            )
        ]
        if self.partitioned:
            made.append(
                f"create table {self.name}_p{self.number} partition of {self.name} for values from (current_date - 60) "
                "to ('infinity')"
            )
        return [*made, *self.rows(12, "interval '1 day'")]

    def rows(self, count: int, ago: str = "interval '0'") -> list[str]:
        first = self.chance.randrange(10**8)
        return [
            (
                f"insert into {self.name} (id, updated_at) select {first} + n, now() - {ago} "
                f"from generate_series(1, {count}) n"
            )
        ]

    def columns(self, connection: psycopg.Connection) -> dict[str, str]:
        return dict(
            connection.execute(
                "select attname, format_type(atttypid, atttypmod) from pg_attribute "
                "where attrelid = to_regclass(%s) and attnum > 0 and not attisdropped",
                [self.name],
            ).fetchall()
        )

    def change(self, connection: psycopg.Connection) -> list[str]:
        """Return the statements of one migration; some are refused by the server."""
        chance, name = self.chance, self.name
        columns = [column for column in self.columns(connection) if column not in {"id", "updated_at"}]
        self.number += 1
        new, type_ = f"c{self.number}", chance.choice(list(_TYPES))
        value = chance.choice(_TYPES[type_])
        one = chance.choice(columns) if columns else "amount"
        other = chance.choice(columns) if columns else "note"
        stamp = chance.choice(["", ", updated_at = now()"])
        alter = f"alter table {name}"
        return chance.choice(
            [
                [f"{alter} add {new} {type_}"],
                [f"{alter} add {new} {type_} default {value}"],
                [f"{alter} add {new} {type_} not null default {value}", f"{alter} alter {new} drop default"],
                [
                    f"{alter} add {new} {type_} default {value}",
                    f"{alter} alter {new} drop default",
                    f"vacuum full {name}",
                ],
                [f"{alter} add {new} {type_}", f"update {name} set {new} = {value}{stamp} where id % 3 > 0"],
                [
                    f"{alter} add {new} {type_}",
                    f"update {name} set {new} = {value}",
                    f"{alter} alter {new} set not null",
                ],
                [f"{alter} add {new} int generated always as (amount * 2) stored"],
                [
                    f"{alter} add {new} int generated always as (amount * 2) stored",
                    f"{alter} alter {new} drop expression",
                ],
                [f"{alter} add {new} int generated always as (amount * 3) virtual"],
                [f"{alter} add {new} bigint generated always as identity"],
                [f"{alter} add {new} bigint generated always as identity", f"{alter} alter {new} drop identity"],
                [f"{alter} drop {one}"],
                [f"{alter} drop {one}", f"{alter} add {one} {type_} default {value}"],
                [f"{alter} rename {one} to {new}"],
                [
                    f"{alter} rename {one} to {new}",
                    f"{alter} rename {other} to {one}",
                    f"{alter} rename {new} to {other}",
                ],
                [f"{alter} rename {one} to {new}", f"{alter} add {one} {type_} default {value}"],
                *self._swaps(one, new),
                *self._swaps("id", new),
                [f"{alter} alter {one} type {type_} using {value}"],
                [f"{alter} alter amount type bigint using amount * 100"],
                [f"{alter} alter amount type bigint"],
                [f"{alter} alter note type varchar(40)"],
                [f"{alter} alter note type text using upper(note)"],
                [f"{alter} alter price type numeric(10,2)"],
                [f"{alter} alter {one} set default null"],
                [f"{alter} drop constraint {name}_pkey, add primary key (id, updated_at)"],
                [f"{alter} alter updated_at type timestamp"],
                [f"{alter} alter updated_at type timestamptz"],
                [f"vacuum full {name}"],
                [f"cluster {name} using {name}_pkey"],
                [f"truncate {name}", *self.rows(3)],
                [f"drop table {name}", *self.make()],
                [f"alter type mood rename value 'ok' to 'v{self.number}'", "alter type mood add value 'ok'"],
                *self._partitions(new),
            ]
        )

    def _swaps(self, one: str, new: str) -> list[list[str]]:
        """Return ways to retype `one` without downtime, in one step or with a run in between."""
        alter = f"alter table {self.name}"
        whole = [
            f"{alter} add {new} bigint",
            f"update {self.name} set {new} = {one}::text::bigint",
            f"{alter} rename {one} to {one}_old",
            f"{alter} rename {new} to {one}",
        ]
        if one == "id":
            whole += [
                f"{alter} drop constraint {self.name}_pkey",
                f"{alter} alter id_old drop not null",
                f"{alter} alter id set not null, add primary key (id)",
            ]
        return [whole, [*whole, f"{alter} drop {one}_old"]]

    def _partitions(self, new: str) -> list[list[str]]:
        if not self.partitioned:
            return []
        part = f"{self.name}_{new}"
        days = 60 + self.number
        bounds = f"for values from (current_date - {days + 1}) to (current_date - {days})"
        return [
            [
                f"create table {part} (like {self.name} including all)",
                f"insert into {part} (id, updated_at) values ({self.number}, current_date - {days + 1} + time '12:00')",
                f"alter table {self.name} attach partition {part} {bounds}",
            ],
            [f"create table {part} partition of {self.name} {bounds}"],
        ]


class Source:
    """Runs the changes, each statement in its own transaction, as online migrations do."""

    def __init__(self, pipe: Pipe) -> None:
        self._pipe = pipe

    def do(self, table: Fuzzed, statements: list[str]) -> None:
        with self._pipe.source() as connection:
            connection.execute("set lock_timeout = '5s'")
            for statement in statements:
                try:
                    connection.execute(statement)
                    table.log.append(statement)
                except psycopg.Error as error:
                    # not every table supports every change; completed steps stay
                    table.log.append(f"{statement} -- {str(error).splitlines()[0]}")
                    return


def test_a_table_that_is_altered_at_random_ends_equal_to_the_source(pipe):
    sys.__stderr__.write(f"\nDRIFT_SEED={SEED} DRIFTS={DRIFTS}\n")
    rounds = advices = rereads = 0
    for batch in range(max(1, DRIFTS // TABLES)):
        with tables(pipe, batch) as found:
            followed, again = run_batch(pipe, found)
        rounds, advices, rereads = rounds + len(found), advices + followed, rereads + again
        if batch % 10 == 9:
            sys.__stderr__.write(f"{rounds} rounds: {advices} advices followed, {rereads} streams read again\n")
    sys.__stderr__.write(f"{rounds} rounds: {advices} advices followed, {rereads} streams read again\n")


@contextmanager
def tables(pipe: Pipe, batch: int) -> Iterator[list[Fuzzed]]:
    """Make tables for one batch of rounds, in emptied databases."""
    with pipe.source() as connection:
        connection.execute("drop schema public cascade; create schema public")
        connection.execute("create type pair as (a int, b text); create type mood as enum ('sad', 'ok')")
    with pipe.warehouse() as connection:
        connection.execute("drop schema if exists raw cascade")
    found = []
    for number in range(TABLES):
        chance = random.Random(f"{SEED} {batch} {number}")
        table = Fuzzed(f"t{number}", chance, whole=chance.random() < 0.2, partitioned=chance.random() < 0.25)
        Source(pipe).do(table, table.make())
        found.append(table)
    yield found


def run_batch(pipe: Pipe, found: list[Fuzzed]) -> tuple[int, int]:  # noqa: C901 - the whole of a round
    """Load the tables, alter them twice, once during a run, and check them; return how many advices and full reads."""
    source = Source(pipe)
    streams = {f"public-{table.name}": FULL_TABLE if table.whole else INCREMENTAL for table in found}
    state = pipe.sync(streams).ok().state
    advices = rereads = 0
    for amid in (False, True):
        with pipe.source() as connection:
            changes = {table.name: table.change(connection) for table in found}
        if amid:
            processes = pipe.start(pipe.catalog(streams), state)
            time.sleep(found[0].chance.uniform(0, 0.6))
        threads = [threading.Thread(target=source.do, args=(table, changes[table.name])) for table in found]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        for table in found:
            source.do(table, [f"update {table.name} set note = null, updated_at = now() where id % 5 = 0"])
            source.do(table, table.rows(2))
        if amid:
            state = pipe.finish(processes).state or state

        def told(synced: Synced, refused: list[str]) -> None:
            nonlocal rereads
            rereads += synced.tap_log.count("from its beginning")
            for line in refused:
                named(found, line).log.append(f"-- {line}")

        def fix(error: str) -> bool:
            table = named(found, error)
            if is_mine := "has no primary key" in error:
                key = "id, updated_at" if table.partitioned else "id"
                source.do(table, [f"alter table {table.name} add primary key ({key})"])
            return is_mine

        try:
            state, met = run_until_well(pipe, streams, state, told=told, fix=fix)
        except AssertionError as error:
            raise AssertionError(f"seed {SEED}: {error}\n" + logs(found, str(error))) from error
        advices += len(met)
        for table in found:
            assert_same(pipe, table)
    return advices, rereads


def assert_same(pipe: Pipe, table: Fuzzed) -> None:
    with pipe.source(options=FIXED) as connection:
        names = list(table_columns(connection, "public", table.name))
    with pipe.warehouse(options=FIXED) as connection:
        # a number in a column of text has the source's digits, and no fewer
        texts = {name for name, type_ in table_columns(connection, "raw", table.name).items() if type_ == "text"}
    with pipe.source(options=FIXED) as connection:
        there = content(connection, "public", table.name, names, texts)
    with pipe.warehouse(options=FIXED) as connection:
        # rows of an earlier table with this name, and truncated rows, stay
        here = content(connection, "raw", table.name, names, texts)
    ids = {row[names.index("id")] for row in there - here}
    shown = [row for row in sorted(here, key=str) if row[names.index("id")] in ids][:2]
    assert not there - here, (
        f"seed {SEED}: {table.name} {names} has {sorted(there - here, key=str)[:2]} for {shown}\n"
        + "\n".join(table.log)
    )


def table_columns(connection: psycopg.Connection, schema: str, table: str) -> dict[str, str]:
    return dict(
        connection.execute(
            "select attname, format_type(atttypid, atttypmod) from pg_attribute "
            "where attrelid = to_regclass(%s) and attnum > 0 and not attisdropped order by attnum",
            [f"{schema}.{table}"],
        ).fetchall()
    )


def content(
    connection: psycopg.Connection, schema: str, table: str, names: list[str], texts: set[str]
) -> set[tuple[Any, ...]]:
    types = table_columns(connection, schema, table)
    # more digits do not change a number, and neither does padding change a text
    fields = [
        sql.SQL(
            "trim_scale({}::numeric)::text"
            if types[name].startswith("numeric") and name not in texts
            else "rtrim(format('%s', {}))"
        ).format(sql.Identifier(name))
        for name in names
    ]
    nulls = [sql.SQL("num_nulls({})").format(sql.Identifier(name)) for name in names]
    query = sql.SQL("select {} from {}").format(sql.SQL(", ").join([*fields, *nulls]), sql.Identifier(schema, table))
    return set(connection.execute(query).fetchall())


def named(found: list[Fuzzed], text: str) -> Fuzzed:
    return next(table for table in found if re.search(rf"\b{table.name}\b", text))


def logs(found: list[Fuzzed], text: str) -> str:
    return "\n".join("\n".join(table.log) for table in found if re.search(rf"\b{table.name}\b", text))
