"""The target's records of its runs, and of RECORD messages that it can't store."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from tests import programs
from tests.programs import TARGET
from tests.singer.conftest import INCREMENTAL, kill
from tests.singer.test_crashes import BIG, SMALL_CHUNKS, wait_for

if TYPE_CHECKING:
    import subprocess

    from tests.singer.conftest import Pipe

RUN = """
    select outcome, rows_read, rows_inserted, rows_updated, rows_unchanged, bytes > 0, error
    from raw._tidemark_runs order by started_at desc limit 1
"""
ORDERS = """
    create table orders (id int primary key, note text, updated_at timestamptz not null default now());
    insert into orders select n, 'note ' || n, now() from generate_series(1, 100) n;
"""
STREAMS = {"public-orders": INCREMENTAL}


def test_a_run_is_recorded_with_its_row_counts_and_bookmarks(pipe):
    pipe.do(ORDERS)
    pipe.target["run_id"] = "one"
    first = pipe.sync(STREAMS).ok().state
    assert pipe.rows(RUN) == [("succeeded", 100, 100, 0, 0, True, None)]
    pipe.do("update orders set note = 'new', updated_at = now() where id <= 10; insert into orders values (101)")
    pipe.target["run_id"] = "two"
    second = pipe.sync(STREAMS, first).ok().state
    assert pipe.rows(RUN) == [("succeeded", 101, 1, 10, 90, True, None)]
    ((before, after, lag),) = pipe.rows(
        "select bookmark_before, bookmark_after, extract(epoch from lag) from raw._tidemark_runs where run_id = 'two'"
    )
    assert before == first["bookmarks"]["public-orders"]["replication_key_value"]
    assert after == second["bookmarks"]["public-orders"]["replication_key_value"]
    assert 0 < lag < 60


def test_a_failed_run_says_why_and_the_next_run_finds_a_killed_one(pipe):
    pipe.do(BIG)
    pipe.tap |= SMALL_CHUNKS
    processes = pipe.start(STREAMS)
    wait_for(lambda: (pipe.directory / "states").read_text().count("\n") >= 2)
    for process in processes:
        kill(process)
    pipe.do("alter table orders alter updated_at type date")
    pipe.sync(STREAMS)
    (killed, failed) = pipe.rows("select outcome, rows_read > 0, error from raw._tidemark_runs order by started_at")
    assert killed == ("killed", True, None)
    assert failed[0] == "failed"
    assert "raw.orders.updated_at is timestamp with time zone" in failed[2]


def test_totals_grow_with_each_committed_row_and_ended_run_whether_or_not_a_history_is_kept(pipe):
    totals = (
        "select rows_read, rows_inserted, rows_updated, rows_deleted, bytes > 0, succeeded, killed, failed, "
        "schema_changes from raw._tidemark_stream_totals where stream = '{}'"
    )
    pipe.do(ORDERS + "create table pages (id int primary key, name text); insert into pages values (1, 'a'), (2, 'b')")
    pipe.target["history_days"] = 0
    streams = {**STREAMS, "public-pages": {"replication-method": "FULL_TABLE"}}
    state = pipe.sync(streams).ok().state
    assert pipe.rows(totals.format("public-orders")) == [(100, 100, 0, 0, True, 1, 0, {}, 0)]
    assert pipe.rows(totals.format("public-pages")) == [(2, 2, 0, 0, True, 1, 0, {}, 0)]
    pipe.do("alter table pages add size int; delete from pages where id = 1")
    pipe.do("alter table orders alter updated_at type date")
    pipe.sync(streams, state)
    assert pipe.rows(totals.format("public-pages")) == [(3, 2, 0, 1, True, 2, 0, {}, 1)]
    ((_, inserted, *_, succeeded, _, failed, _),) = pipe.rows(totals.format("public-orders"))
    assert (inserted, succeeded, sum(failed.values())) == (100, 1, 1)


def test_a_run_says_what_held_its_bookmark_back_and_how_long_its_steps_took(pipe):
    pipe.do(ORDERS)
    with pipe.source() as open_transaction, open_transaction.transaction():
        open_transaction.execute("create table other (id int)")
        open_transaction.execute("select pg_sleep(1)")
        pipe.sync(STREAMS).ok()
    ((by, seconds, reading, copying, merging),) = pipe.rows(
        "select held_by, held_seconds, seconds_reading, seconds_copying, seconds_merging from raw._tidemark_runs"
    )
    assert by == "transaction"
    assert seconds > 1
    assert reading > 0
    assert copying > 0
    # the rows went straight into the empty table, which then got its key
    assert merging > 0


def test_a_run_says_what_it_cost_the_source_and_nothing_of_what_others_did_there(pipe_of_versions):
    pipe = pipe_of_versions
    # the server counts what this session read when it ends
    with pipe.source() as connection:
        connection.execute(f"{ORDERS}; create view seen as select id from orders")
    pipe.sync({**STREAMS, "public-seen": {"replication-method": "FULL_TABLE"}}).ok()
    with pipe.source() as connection:
        counts_wal = connection.info.server_version >= 180000
        ((pages, others),) = connection.execute(
            "select pg_relation_size('orders') / 8192, (select sum(heap_blks_hit + heap_blks_read)::int "
            "from pg_statio_user_tables)"
        ).fetchall()
    costs = "source_bytes = bytes, source_buffers_hit + source_buffers_read, source_wal_bytes, snapshot_seconds > 0"
    (orders, seen) = pipe.rows(f"select {costs}, seconds_paused from raw._tidemark_runs order by stream")
    same, buffers, wal, held, paused = orders
    assert (same, held, paused) == (True, True, 0)
    # the table's pages, each once, and the first page of its index, at which the planner looks
    assert pages <= buffers <= pages + 1 < others
    assert (wal is not None) == counts_wal
    # a server may read a view with several processes
    assert seen[:3] == (True, None, None)


def test_run_records_are_kept_for_the_configured_time(pipe):
    pipe.do(ORDERS)
    state = pipe.sync(STREAMS).ok().state
    with pipe.warehouse() as connection:
        connection.execute("update raw._tidemark_runs set started_at = now() - interval '91 days'")
    pipe.sync(STREAMS, state).ok()
    assert pipe.rows("select count(*) from raw._tidemark_runs") == [(1,)]
    pipe.target["history_days"] = 0
    pipe.sync(STREAMS, state).ok()
    assert pipe.rows("select count(*) from raw._tidemark_runs") == [(1,)]


# RECORD messages that can't be stored

SCHEMA = {
    "type": "SCHEMA",
    "stream": "things",
    "schema": {"type": "object", "properties": {"id": {"type": "integer"}, "name": {"type": ["string", "null"]}}},
    "key_properties": ["id"],
}
GOOD = [{"id": number, "name": "x"} for number in range(50)]
# the server refuses a NUL character; the schema refuses a number as a name
BAD = [{"id": 100, "name": "a\0b"}, {"id": 101, "name": 7}]


def feed(pipe: Pipe, records: list[dict[str, Any]]) -> subprocess.CompletedProcess[str]:
    lines = [SCHEMA, *({"type": "RECORD", "stream": "things", "record": record} for record in records)]
    lines.append({"type": "STATE", "value": {"bookmarks": {"things": {"at": 1}}}})
    path = pipe.directory / "lines"
    path.write_text("\n".join(map(json.dumps, lines)))
    return programs.run([TARGET, "--config", pipe.configs()[1], "--input", path], env=pipe.environment())


def test_a_record_that_cannot_be_stored_is_put_aside_with_the_reason_and_counted(pipe):
    pipe.target["max_rejects"] = 2
    done = feed(pipe, [*GOOD[:30], *BAD, *GOOD[30:]])
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    assert json.loads(done.stdout.splitlines()[-1])["bookmarks"] == {"things": {"at": 1}}
    assert pipe.rows("select count(*) from raw.things") == [(50,)]
    rejects = pipe.rows("select stream, record, error from raw._tidemark_rejects order by id")
    assert sorted(json.loads(record)["id"] for _, record, _ in rejects) == [100, 101]
    assert pipe.rows("select rows_read, rows_inserted, rows_rejected from raw._tidemark_runs") == [(52, 50, 2)]


def test_more_rejects_than_allowed_fail_the_stream_and_its_state_is_not_emitted(pipe):
    pipe.target["max_rejects"] = 1
    done = feed(pipe, [*GOOD, *BAD])
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    # the server refuses the one after the last that may be put aside
    assert {failure["code"] for failure in pipe.failures()} == {"value_invalid"}
    assert "things" not in json.loads((done.stdout.splitlines() or ["{}"])[-1]).get("bookmarks", {})
    assert pipe.rows("select outcome from raw._tidemark_runs") == [("failed",)]


# the tables themselves


def test_tables_of_an_older_release_are_migrated(pipe):
    pipe.do(ORDERS)
    state = pipe.sync(STREAMS).ok().state
    with pipe.warehouse() as connection:
        connection.execute(
            "alter table raw._tidemark_state drop run_id, drop shape, drop position, drop slot, drop is_loading, "
            "drop repair, drop key_pending"
        )
        connection.execute("comment on table raw._tidemark_state is null")
    pipe.do("update orders set note = 'new', updated_at = now() where id = 1")
    pipe.sync(STREAMS, state).ok()
    assert pipe.rows("select note from raw.orders where id = 1") == [("new",)]
    assert pipe.rows("select run_id is not null, shape is not null from raw._tidemark_state") == [(True, True)]


def test_tables_of_a_newer_release_are_not_touched_and_the_run_is_refused(pipe):
    pipe.do(ORDERS)
    state = pipe.sync(STREAMS).ok().state
    with pipe.warehouse() as connection:
        connection.execute("comment on table raw._tidemark_state is 'Kept by Tidemark: version 99'")
    error = pipe.sync(STREAMS, state).refused("release_mismatch")
    assert "raw._tidemark_state has version 99" in error
