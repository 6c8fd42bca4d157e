"""What the log does not say, and what happens to the slot: nothing is missed in silence."""

from __future__ import annotations

import os
import sys
import threading
import time
import uuid
from contextlib import suppress

import psutil
import psycopg
import pytest

from tests.singer.conftest import FULL_TABLE, INCREMENTAL, kill
from tests.singer.test_log_based import LOG_BASED, SLOT, follow, log_pipe, publish, same  # noqa: F401 - a fixture

# the rows of a large transaction
LARGE = int(os.environ.get("TRANSACTION_ROWS", "500000"))
SIMPLE = """
    create table things (id bigint primary key, name text);
    insert into things select i, 'n' from generate_series(1, 9) i
"""


def lsn(pipe) -> tuple[int, int]:
    """Return how many bytes the slot holds back, and how far its confirmed position is behind."""
    with pipe.source() as connection:
        return connection.execute(
            "select pg_current_wal_lsn() - restart_lsn, pg_current_wal_lsn() - confirmed_flush_lsn "
            "from pg_replication_slots where slot_name = %s",
            [SLOT],
        ).fetchone()


def test_values_of_all_kinds_come_from_the_log_as_they_come_from_the_table(log_pipe):  # noqa: F811
    pipe = log_pipe
    pipe.do(
        "create type mood as enum ('sad', 'ok'); create domain code as varchar(5) check (value <> '');"
        "create type pair as (a int, b text);"
        "create table kinds (id int primary key, m mood, ms mood[], c code, p pair, j jsonb, js json, t timestamptz,"
        " d date, n numeric, b bytea, r int4range, i interval, f float8, l bool, ch char(4), secret text, flag bool);"
    )
    row = (
        "'ok', '{sad,ok}', 'x', '(1,\"a,b\")', '{\"k\": [1, null]}', '{\"z\":1,\"z\":2}', '2026-03-29 02:30+01',"
        " '0044-03-15 BC', 1.500, '\\x00ff', '[1,5)', '1 mon -3 days 04:05:06.7', 'infinity', true,"
        " 'ab', 's3cret', true"
    )
    pipe.do(f"insert into kinds values (1, {row})")
    pipe.tap |= {"masks": {"public-kinds": {"secret": "sha256", "flag": "sha256", "ch": "redact"}}, "mask_secret": "s"}
    publish(pipe, "kinds")
    follow(pipe, "kinds")
    pipe.do(
        f"insert into kinds values (2, {row}); insert into kinds (id) values (3); update kinds set n = 2.0 where id = 1"
    )
    follow(pipe, "kinds")
    columns = "m, ms, c, p, j, js::text, t, d::text, b, r, i, f, l, ch, secret, flag"
    by_table, by_log, empty = (pipe.rows(f"select {columns} from raw.kinds where id = {n}") for n in (1, 2, 3))
    assert by_table == by_log
    assert set(empty[0]) == {None}
    assert pipe.rows("select id, n::text from raw.kinds order by 1") == [(1, "2.0"), (2, "1.500"), (3, None)]
    assert pipe.rows("select count(*) from raw.kinds where kinds::text like '%s3cret%'") == [(0,)]


def test_a_new_table_is_loaded_while_the_others_go_on_and_a_writer_that_was_open_when_it_was_published_is_waited_for(
    log_pipe,  # noqa: F811
):
    pipe = log_pipe
    pipe.do(f"{SIMPLE}; create table later (id bigint primary key, name text)")
    publish(pipe, "things")
    follow(pipe, "things")
    with psycopg.connect(pipe.source_url) as writer:
        writer.execute("insert into later values (1, 'before it was published')")
        pipe.do(f"alter publication {SLOT} add table later; update things set name = 'changed' where id = 1")
        writer.execute("insert into later values (2, 'after')")
        commit = threading.Timer(4, writer.commit)
        commit.start()
        done = follow(pipe, "things", "later")
        commit.join()
    assert "public-later waits for transactions that have written to its table" in done.tap_log
    assert same(pipe, "things")
    assert same(pipe, "later")


def test_columns_that_come_and_go_are_followed_in_the_order_of_the_log(log_pipe):  # noqa: F811
    pipe = log_pipe
    pipe.do(SIMPLE)
    publish(pipe, "things")
    follow(pipe, "things")
    pipe.do(
        "insert into things values (10, 'before'); alter table things add column size int;"
        "insert into things values (11, 'with', 5); update things set size = 1 where id = 1;"
        "alter table things alter column size type bigint;"
        "insert into things values (12, 'large', 5000000000); alter table things drop column name;"
        "insert into things values (13, 6)"
    )
    follow(pipe, "things")
    assert pipe.rows("select id, name, size from raw.things where id > 9 order by id") == [
        (10, "before", None),
        (11, "with", 5),
        (12, "large", 5000000000),
        (13, None, 6),
    ]


def test_a_stream_that_loses_its_key_in_the_log_leaves_the_others_alone(log_pipe):  # noqa: F811
    pipe = log_pipe
    pipe.do(f"{SIMPLE}; create table keyed (id int primary key, name text)")
    publish(pipe, "things", "keyed")
    follow(pipe, "things", "keyed")
    pipe.do(
        "insert into keyed values (1, 'by its first key'); alter table keyed drop column id;"
        "alter table keyed add column other int generated always as identity primary key;"
        "update things set name = 'after that' where id = 1"
    )
    done = pipe.sync({"public-things": LOG_BASED, "public-keyed": LOG_BASED}, pipe.state)
    # the target says, too, that the table has another key
    assert done.codes == {"log_unfit", "key_changed"}
    assert "lost other, a part of its key" in done.tap_log
    assert same(pipe, "things")


def test_a_slot_that_is_missing_leaves_streams_of_other_methods_alone(log_pipe):  # noqa: F811
    pipe = log_pipe
    pipe.do(f"{SIMPLE}; create table whole (id int primary key); insert into whole values (1)")
    publish(pipe, "things")
    follow(pipe, "things")
    pipe.do(f"select pg_drop_replication_slot('{SLOT}'); insert into whole values (2)")
    done = pipe.sync({"public-things": LOG_BASED, "public-whole": {"replication-method": "FULL_TABLE"}}, pipe.state)
    assert "`tidemark slots repair` does" in done.refused("slot_missing")
    assert same(pipe, "whole")


def test_a_slot_that_was_made_again_is_refused_until_its_streams_are_read_again(log_pipe):  # noqa: F811
    pipe = log_pipe
    pipe.do(SIMPLE)
    publish(pipe, "things")
    follow(pipe, "things")
    pipe.do(f"select pg_drop_replication_slot('{SLOT}')")
    assert "has no replication slot" in pipe.sync({"public-things": LOG_BASED}, pipe.state).refused("slot_missing")
    pipe.do("update things set name = 'missed'")
    pipe.do(f"select pg_create_logical_replication_slot('{SLOT}', 'pgoutput')")
    line = pipe.sync({"public-things": LOG_BASED}, pipe.state).refused("slot_ahead")
    assert "`tidemark slots repair` makes the slot again" in line
    pipe.state = None
    follow(pipe, "things")
    assert same(pipe, "things")


def test_the_slot_moves_on_beside_a_busy_database_and_a_run_with_an_older_state_changes_nothing(log_pipe):  # noqa: F811
    pipe = log_pipe
    pipe.do(SIMPLE)
    publish(pipe, "things")
    follow(pipe, "things")
    older = pipe.state
    pipe.do("update things set name = 'once' where id = 1")
    follow(pipe, "things")
    pipe.do("create table busy as select i, repeat('x', 500) t from generate_series(1, 10000) i; drop table busy")
    assert lsn(pipe)[1] > 2**22
    follow(pipe, "things")
    assert lsn(pipe)[1] < 2**20, "the source keeps nothing that was read"
    counts = "select sum(rows_inserted), sum(rows_updated), sum(rows_deleted) from raw._tidemark_runs"
    before = pipe.rows(counts)
    follow(pipe, "things", state=older)
    assert pipe.rows(counts) == before


def test_tables_that_the_log_can_not_identify_are_refused_and_the_others_go_on(log_pipe):  # noqa: F811
    pipe = log_pipe
    pipe.do(f"{SIMPLE}; create table keyless (id int); create table unpublished (id int primary key)")
    publish(pipe, "things", "keyless")
    streams = {f"public-{name}": LOG_BASED for name in ("things", "keyless", "unpublished")}
    done = pipe.sync(streams)
    assert done.codes == {"log_unfit"}, done.tap_log
    assert "public.keyless has no primary key" in done.tap_log
    assert "ALTER PUBLICATION" in done.tap_log
    assert same(pipe, "things")


def test_a_role_that_may_not_stream_the_log_is_refused_with_the_servers_words(log_pipe):  # noqa: F811
    pipe = log_pipe
    role = f"reader_{uuid.uuid4().hex[:8]}"
    pipe.do(f"{SIMPLE}; create role {role} login password 'reader'; grant pg_read_all_data to {role}")
    publish(pipe, "things")
    pipe.tap |= {"user": role, "password": "reader"}
    line = pipe.sync({"public-things": LOG_BASED}).refused("replication_failed")
    # in the words of 15, and of 16 and later
    assert "must be superuser or replication role" in line or "permission denied to start WAL sender" in line
    pipe.do(f"drop owned by {role}; drop role {role}")


def test_streams_of_all_methods_live_in_one_run(log_pipe):  # noqa: F811
    pipe = log_pipe
    pipe.do(
        f"{SIMPLE}; create table stamped (id int primary key, updated_at timestamptz not null default now());"
        "insert into stamped values (1); create table small (id int primary key); insert into small values (1)"
    )
    publish(pipe, "things")
    streams = {"public-things": LOG_BASED, "public-stamped": INCREMENTAL, "public-small": FULL_TABLE}
    first = pipe.sync(streams).ok()
    pipe.do("insert into things values (100, 'x'); insert into stamped values (2); insert into small values (2)")
    pipe.sync(streams, first.state).ok()
    assert all(same(pipe, name) for name in ("things", "stamped", "small"))


def test_a_stream_moves_to_the_log_and_back_by_changing_its_method(log_pipe):  # noqa: F811
    pipe = log_pipe
    pipe.do(
        "create table stamped (id int primary key, name text, updated_at timestamptz not null default now());"
        "insert into stamped select i, 'n', now() - interval '1 day' from generate_series(1, 9) i"
    )
    streams = {"public-stamped": INCREMENTAL}
    pipe.state = pipe.sync(streams).ok().state
    publish(pipe, "stamped")
    pipe.do("update stamped set name = 'unstamped' where id = 1")
    follow(pipe, "stamped")
    read = (
        "select rows_read, repair from raw._tidemark_runs join raw._tidemark_state using (stream) order by started_at"
    )
    assert pipe.rows(read)[-1][0] < 9, "only what came after its bookmark is read, and what the log has"
    assert "deleted before" in pipe.rows(read)[-1][1]
    pipe.do("update stamped set name = 'by the log' where id = 2; delete from stamped where id = 3")
    follow(pipe, "stamped")
    assert same(pipe, "stamped")
    pipe.do("update stamped set name = 'by its key', updated_at = now() where id = 4")
    pipe.state = pipe.sync(streams, pipe.state).ok().state
    assert same(pipe, "stamped")
    pipe.do("update stamped set name = 'unstamped again' where id = 5")
    follow(pipe, "stamped")
    assert same(pipe, "stamped"), "it is loaded again, because the log did not keep its changes meanwhile"


@pytest.mark.long
def test_a_follower_has_changes_within_seconds(log_pipe):  # noqa: F811
    pipe = log_pipe
    pipe.do(SIMPLE)
    publish(pipe, "things")
    follow(pipe, "things")
    pipe.tap |= {"replication_max_run_seconds": 15, "flush_seconds": 0.5}
    processes = pipe.start({"public-things": LOG_BASED}, pipe.state)
    time.sleep(3)
    for number in range(100, 110):
        pipe.do(f"insert into things values ({number}, 'followed')")
        deadline = time.monotonic() + 5
        while not pipe.rows(f"select from raw.things where id = {number}"):
            assert time.monotonic() < deadline
            time.sleep(0.05)
    pipe.state = pipe.finish(processes).ok().state
    assert same(pipe, "things")


@pytest.mark.long
def test_a_stream_that_was_left_out_while_it_was_loaded_is_not_completed_without_its_changes(log_pipe):  # noqa: F811
    pipe = log_pipe
    pipe.do(f"{SIMPLE}; create table large (id int primary key, t text)")
    pipe.do("insert into large select i, repeat('x', 500) from generate_series(1, 6000) i")
    publish(pipe, "things", "large")
    pipe.tap |= {"chunk_size_mb": 0.08}
    catalog = pipe.catalog({"public-things": LOG_BASED, "public-large": LOG_BASED})
    processes = pipe.start(catalog)
    deadline = time.monotonic() + 30
    while (pipe.directory / "states").read_text().count("\n") < 6:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    kill(processes[-1])
    killed = pipe.finish(processes)
    assert killed.state["bookmarks"]["public-large"]["first_load"]
    # its changes pass while nobody follows it
    pipe.do("update large set t = 'missed' where id < 100")
    state = pipe.sync({"public-things": LOG_BASED}, killed.state).ok().state
    again = {"bookmarks": {**state["bookmarks"], "public-large": killed.state["bookmarks"]["public-large"]}}
    line = pipe.sync(catalog, again).refused("state_ahead")
    assert "parts of its first load would be missed" in line
    del again["bookmarks"]["public-large"]
    pipe.sync(catalog, again).ok()
    assert same(pipe, "large")


@pytest.mark.long
@pytest.mark.timeout(900)
def test_a_transaction_of_any_size_needs_little_memory(log_pipe):  # noqa: F811
    pipe = log_pipe
    pipe.do("create table many (id int primary key, a text, b numeric(12,2), c timestamptz)")
    publish(pipe, "many")
    follow(pipe, "many")
    pipe.do(f"insert into many select i, repeat('x', 60), i, now() from generate_series(1, {LARGE}) i")
    processes = pipe.start({"public-many": LOG_BASED}, pipe.state)
    peaks, began = [0.0] * len(processes), time.monotonic()
    while any(process.poll() is None for process in processes):
        for number, process in enumerate(processes):
            with suppress(psutil.NoSuchProcess):
                of_it = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
                peaks[number] = max([peaks[number], *(each.memory_info().rss / 2**20 for each in of_it)])
        time.sleep(0.2)
    took = time.monotonic() - began
    pipe.finish(processes).ok()
    assert pipe.rows("select count(*) from raw.many") == [(LARGE,)]
    assert max(peaks) < 200
    if "TRANSACTION_ROWS" in os.environ:
        tap, target = peaks
        line = f"{LARGE} rows in one transaction: tap {tap:.0f} MB, target {target:.0f} MB at most, {took:.0f} s\n"
        sys.__stderr__.write(line)
