"""Faults that users of other tools of change data capture have reported, each as what these streams promise instead."""

from __future__ import annotations

import time

import pytest

from tests.singer.conftest import kill
from tests.singer.test_crashes import wait_for
from tests.singer.test_log_based import LOG_BASED, SLOT, follow, log_pipe, publish, same  # noqa: F401 - a fixture
from tests.singer.test_log_faults import SIMPLE, lsn


def test_tables_of_one_slot_do_not_take_each_others_changes(log_pipe):  # noqa: F811
    pipe, names = log_pipe, ("first", "second", "third")
    for name in (*names, "unread"):
        pipe.do(f"create table {name} (id int primary key, t text); insert into {name} values (1, 'a'), (2, 'b')")
    publish(pipe, *names, "unread")
    follow(pipe, *names)
    for number in range(3):
        pipe.do("begin;" + "".join(f"insert into {name} values (1{number}, '{name}');" for name in names) + "commit")
        pipe.do(f"update third set t = 'u{number}'; delete from first where id = {number}; update unread set t = 'x'")
        # only one has changes
        pipe.do(f"update {names[number]} set t = 'only'")
        follow(pipe, *names)
        assert [name for name in names if not same(pipe, name)] == []


def test_no_change_with_an_enum_vanishes_whatever_value_it_gets(log_pipe):  # noqa: F811
    pipe = log_pipe
    pipe.do(
        "create type mood as enum ('sad', 'ok'); create table people (id int primary key, m mood, ms mood[]);"
        "insert into people values (1, 'sad', '{sad}')"
    )
    publish(pipe, "people")
    follow(pipe, "people")
    pipe.do("insert into people values (2, 'ok', '{ok,sad}'); alter type mood add value 'it''s \"new\"'")
    pipe.do("insert into people values (3, 'it''s \"new\"', array['it''s \"new\"', null]::mood[])")
    pipe.do("alter type mood rename value 'sad' to 'blue'; update people set m = 'blue' where id = 2")
    follow(pipe, "people")
    rows = "select id, m::text, ms::text from people order by id"
    with pipe.source() as connection:
        there = connection.execute(rows).fetchall()
    # the rename of a value writes nothing to the log, as it changes no row
    assert [row for row in pipe.rows(rows.replace("people", "raw.people")) if row[0] > 2] == there[2:]
    assert pipe.rows("select id, m::text from raw.people where id = 2") == [(2, "blue")]


@pytest.mark.long
def test_an_idle_database_beside_a_busy_one_holds_little_wal_while_a_tap_follows(log_pipe, make_pipe):  # noqa: F811
    pipe, busy = log_pipe, make_pipe()
    pipe.do(SIMPLE)
    publish(pipe, "things")
    follow(pipe, "things")
    pipe.tap |= {"replication_max_run_seconds": 60}
    processes = pipe.start({"public-things": LOG_BASED}, pipe.state)
    held, written, began = [], 0, time.monotonic()
    busy.do("create table busy (t text)")
    while time.monotonic() - began < 55:
        busy.do("insert into busy select repeat(md5(i::text), 30) from generate_series(1, 2000) i")
        written += 2
        held.append(lsn(pipe)[0] / 2**20)
        time.sleep(1)
    pipe.finish(processes).ok()
    assert written > 80, "MB were written meanwhile"
    assert max(held) < 64, held


def test_a_batch_that_could_not_be_loaded_is_never_skipped_in_silence(log_pipe):  # noqa: F811
    pipe = log_pipe
    pipe.do(f"{SIMPLE}; create table others (id int primary key); insert into others values (1)")
    publish(pipe, "things", "others")
    follow(pipe, "things", "others")
    with pipe.warehouse() as connection:
        connection.execute("alter table raw.things add constraint short check (length(name) < 5)")
    pipe.do("update things set name = 'too long' where id = 1; insert into others values (2)")
    streams = {"public-things": LOG_BASED, "public-others": LOG_BASED}
    failed = pipe.sync(streams, pipe.state)
    assert failed.codes == {"constraint_violation"}, failed.codes
    assert same(pipe, "others"), "the others go on"
    # and the stream is refused, however often it is tried, until somebody brings it back
    with pipe.warehouse() as connection:
        connection.execute("alter table raw.things drop constraint short")
    pipe.do("insert into things values (50, 'next'); insert into others values (3)")
    for _ in range(2):
        assert "public-things" in pipe.sync(streams, failed.state or pipe.state).refused("state_ahead")
        assert same(pipe, "others")
    del failed.state["bookmarks"]["public-things"]
    pipe.sync(streams, failed.state).ok()
    assert same(pipe, "things")


@pytest.mark.long
def test_nothing_that_was_staged_stays_in_the_warehouse(log_pipe):  # noqa: F811
    pipe = log_pipe
    pipe.do(f"{SIMPLE}; create table large (id int primary key, t text)")
    pipe.do("insert into large select i, repeat('x', 500) from generate_series(1, 6000) i")
    publish(pipe, "things", "large")
    pipe.tap |= {"chunk_size_mb": 0.08, "flush_seconds": 0.1}
    catalog = pipe.catalog({"public-things": LOG_BASED, "public-large": LOG_BASED})
    processes = pipe.start(catalog)
    wait_for(lambda: (pipe.directory / "states").read_text().count("\n") >= 6)
    pipe.do("update large set t = 'waits' where id < 100")
    kill(processes[-1])
    killed = pipe.finish(processes)
    pipe.state = pipe.sync(catalog, killed.state).ok().state
    assert same(pipe, "large")
    tables = "select relname from pg_class where relnamespace = 'raw'::regnamespace and relkind = 'r'"
    left = {name for (name,) in pipe.rows(tables)} - {"things", "large"}
    assert not {name for name in left if "pending" in name or "stage" in name}, left
    # of a load that nobody goes on with, too
    del pipe.state["bookmarks"]["public-large"]
    processes = pipe.start(catalog, pipe.state)
    wait_for(lambda: (pipe.directory / "states").read_text().count("\n") >= 6)
    pipe.do("update large set t = 'waits again' where id < 100")
    kill(processes[-1])
    pipe.state = pipe.finish(processes).state
    pipe.state = pipe.sync({"public-things": LOG_BASED}, pipe.state).ok().state
    left = {name for (name,) in pipe.rows(tables)} - {"things", "large"}
    assert not {name for name in left if "pending" in name or "stage" in name}, left


def test_wal_that_no_stream_needs_is_not_kept_after_a_run(log_pipe):  # noqa: F811
    pipe = log_pipe
    pipe.do(f"{SIMPLE}; create table unread (t text)")
    publish(pipe, "things")
    follow(pipe, "things")
    for _ in range(2):
        pipe.do("insert into unread select repeat(md5(i::text), 30) from generate_series(1, 10000) i; checkpoint")
        follow(pipe, "things")
        # 10 MB were written; other tests on this server write, too
        assert lsn(pipe)[1] < 2**22, f"the slot {SLOT} holds what nobody needs"
