"""LOG_BASED streams: changes come from the source's write-ahead log, and are committed exactly once."""

from __future__ import annotations

import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.integration.checkout import Checkout
    from tests.singer.conftest import Pipe, Synced

LOG_BASED = {"replication-method": "LOG_BASED"}
SLOT = "tidemark_tap_postgres"


@pytest.fixture
def log_pipe(installed: Callable[[str], Checkout], make_pipe: Callable[..., Pipe]) -> Iterator[Pipe]:
    """A pipe from a server that writes a logical log."""
    with log_source(installed, make_pipe) as pipe:
        yield pipe


@contextmanager
def log_source(
    installed: Callable[[str], Checkout], make_pipe: Callable[..., Pipe], warehouse: str = "embedded"
) -> Iterator[Pipe]:
    """Yield a pipe from a server that writes a logical log; drop its slots at the end."""
    checkout = installed("embedded")
    with checkout.connect("source", "postgres") as connection:
        has = connection.execute("show wal_level").fetchone()
        if has != ("logical",):
            connection.execute("alter system set wal_level = logical")
    if has != ("logical",):
        checkout.tidemark("down")
        checkout.tidemark("up")
    pipe = make_pipe(warehouse=warehouse)
    yield pipe
    with pipe.source() as connection:
        connection.execute(
            "select pg_drop_replication_slot(slot_name) from pg_replication_slots where database = current_database()"
        )


def publish(pipe: Pipe, *tables: str) -> None:
    pipe.do(f"create publication {SLOT} for table {', '.join(tables)} with (publish_via_partition_root = true)")
    pipe.do(f"select pg_create_logical_replication_slot('{SLOT}', 'pgoutput')")


def follow(pipe: Pipe, *streams: str, state: dict[str, Any] | None = None) -> Synced:
    """Run once; go on from the last run's state."""
    done = pipe.sync({f"public-{name}": LOG_BASED for name in streams}, state or pipe.state).ok()
    pipe.state = done.state
    return done


def same(pipe: Pipe, table: str) -> bool:
    """Return whether the warehouse has the table's rows, apart from those that it marks as deleted."""
    with pipe.source() as source:
        row = source.execute(
            "select string_agg(quote_ident(attname), ', ' order by attnum) from pg_attribute "
            "where attrelid = %s::regclass and attnum > 0 and not attisdropped",
            [f"public.{table}"],
        ).fetchone()
        assert row
        there = source.execute(f"select {row[0]} from public.{table}".encode()).fetchall()
    here = pipe.rows(f"select {row[0]} from raw.{table} where _sdc_deleted_at is null")
    return sorted(map(repr, there)) == sorted(map(repr, here))


def test_changes_of_a_loaded_table_follow_from_the_log(log_pipe):
    pipe = log_pipe
    pipe.do(
        "create table accounts (id bigint primary key, owner text, balance numeric(12,2), note text);"
        "insert into accounts select i, 'o' || i, i, repeat('x', 10) from generate_series(1, 1000) i"
    )
    publish(pipe, "accounts")
    follow(pipe, "accounts")
    assert same(pipe, "accounts")
    pipe.do(
        "update accounts set balance = balance + 1 where id <= 10; delete from accounts where id between 11 and 15;"
        "insert into accounts values (2000, E'tab\\tnew\\nline\\\\', null, null)"
    )
    follow(pipe, "accounts")
    assert same(pipe, "accounts")
    pipe.do(
        "begin; update accounts set id = 5000 where id = 1; update accounts set id = 1 where id = 2;"
        "update accounts set note = 'moved' where id = 5000; delete from accounts where id = 3;"
        "insert into accounts values (3, 'again', 1, null); commit"
    )
    follow(pipe, "accounts")
    assert same(pipe, "accounts")
    pipe.do("truncate accounts; insert into accounts values (7, 'only', 7, 'n')")
    follow(pipe, "accounts")
    assert same(pipe, "accounts")
    follow(pipe, "accounts")
    assert same(pipe, "accounts")


@pytest.mark.long
def test_the_log_is_read_no_faster_than_the_ceiling_allows(log_pipe):
    pipe = log_pipe
    pipe.do("create table notes (id int primary key, body text)")
    publish(pipe, "notes")
    follow(pipe, "notes")
    pipe.do("insert into notes select n, repeat('x', 1000) from generate_series(1, 3000) n")
    pipe.tap["max_source_mb_per_s"] = 1
    began = time.monotonic()
    follow(pipe, "notes")
    assert time.monotonic() - began > 3_000_000 / 2**20
    assert same(pipe, "notes")


def test_values_that_are_not_in_the_log_because_they_did_not_change_stay(log_pipe):
    pipe = log_pipe
    pipe.do(
        "create table papers (id bigint primary key, title text, body text, more text);"
        "alter table papers alter body set storage external, alter more set storage external;"
        "insert into papers select i, 't', repeat(i::text, 4000), repeat('m', 3000) from generate_series(1, 20) i"
    )
    publish(pipe, "papers")
    follow(pipe, "papers")
    pipe.do("update papers set title = 'changed' where id <= 3")
    follow(pipe, "papers")
    assert same(pipe, "papers")
    # inserted and updated in one batch; moved to a key that another row had; a value set and then left alone
    pipe.do(
        "begin; insert into papers values (100, 'n', repeat('z', 5000), 'short');"
        "update papers set title = 'x' where id = 100; commit;"
        "update papers set body = repeat('new', 3000) where id = 4; update papers set title = 'later' where id = 4;"
        "delete from papers where id = 5; update papers set id = 5 where id = 6;"
        "update papers set title = 'five' where id = 5; update papers set id = 6 where id = 7;"
        "update papers set id = 7, title = 'seven' where id = 6; update papers set id = 200 where id = 100;"
        "update papers set more = null where id = 200; update papers set id = 201 where id = 200"
    )
    follow(pipe, "papers")
    assert same(pipe, "papers")
