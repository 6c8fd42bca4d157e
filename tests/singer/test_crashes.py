"""Tap and target are killed, stopped, starved and orphaned: no row is lost or doubled, and nothing is left behind."""

from __future__ import annotations

import os
import random
import select
import signal
import subprocess
import threading
import time

import psycopg
import pytest

from tests.programs import TAP
from tests.singer.conftest import FULL_TABLE, INCREMENTAL, kill

BIG_ROWS = 20_000
BIG = f"""
    create table orders (id bigint primary key, note text, updated_at timestamptz not null default now());
    insert into orders (id, note, updated_at)
    select n, repeat(md5(n::text), 3), timestamptz '2026-01-01' + n * interval '1 second'
    from generate_series(1, {BIG_ROWS}) n;
    create index on orders (updated_at);
"""
SMALL_CHUNKS = {"chunk_size_mb": 0.08}
# `make chaos` runs more of them, and kills the tap too
CRASHES = int(os.environ.get("CRASHES", "2"))
VICTIMS = [pytest.param(-1, id="target")] + ([pytest.param(0, id="tap")] if "CRASHES" in os.environ else [])


def contents(connect, table: str):
    with connect() as connection:
        return connection.execute(
            f"select count(*), count(distinct id), sum(hashtext(id || note)) from {table}"
        ).fetchone()


def assert_equal(pipe, table: str = "orders") -> None:
    assert contents(pipe.warehouse, f"raw.{table}") == contents(pipe.source, table)


def wait_for(what, timeout_s: float = 30) -> None:
    end = time.monotonic() + timeout_s
    while True:
        asked = time.monotonic()
        if what():
            return
        now = time.monotonic()
        assert now < end, "it did not happen"
        # a look that takes long must not take the processor from what it waits for
        time.sleep(max(0.01, 4 * (now - asked)))


@pytest.mark.parametrize("victim", VICTIMS)
def test_a_killed_first_load_resumes_where_it_stopped(pipe, victim):
    pipe.do(BIG)
    pipe.tap |= SMALL_CHUNKS
    catalog = pipe.catalog({"public-orders": INCREMENTAL})
    processes = pipe.start(catalog)
    wait_for(lambda: (pipe.directory / "states").read_text().count("\n") >= 8)
    kill(processes[victim])
    killed = pipe.finish(processes)
    ((kept,),) = pipe.rows("select count(*) from raw.orders")
    assert 0 < kept < BIG_ROWS
    pipe.do("update orders set note = 'changed', updated_at = now() where id % 100 = 0")

    # as if Meltano had been killed before it kept the last states: their ranges are read again
    synced = pipe.sync(catalog, killed.states[4], listen=True).ok()
    read = sum(message["encoding"]["rows"] for message in synced.messages if message["type"] == "BATCH")
    assert read < BIG_ROWS, "loaded rows are not read again"
    assert "Rows that were read twice are removed" in synced.target_log
    assert pipe.rows("select conname from pg_constraint where conrelid = 'raw.orders'::regclass and contype = 'p'")
    pipe.sync(catalog, synced.state).ok()
    assert_equal(pipe)
    assert not list(pipe.chunks.glob("run-*"))


def test_rows_that_change_after_a_killed_first_load_are_read_by_the_run_that_resumes_it(pipe):
    pipe.do(BIG)
    pipe.tap |= SMALL_CHUNKS
    catalog = pipe.catalog({"public-orders": INCREMENTAL})
    loaded = pipe.sync(catalog, listen=True).ok()
    bookmarks = [
        message["value"]["bookmarks"]["public-orders"] for message in loaded.messages if message["type"] == "STATE"
    ]
    # as if the run had been killed when all rows were loaded, and their end was not reported yet
    unfinished = [bookmark for bookmark in bookmarks if bookmark.get("first_load")][-1]
    pipe.do("update orders set note = 'changed', updated_at = now() where id % 100 = 0")
    pipe.do(f"insert into orders (id, note) values ({BIG_ROWS + 1}, 'new')")
    # and some without a new stamp
    pipe.do("update orders set note = 'changed' where id % 100 = 1")

    resumed = pipe.sync(catalog, {"bookmarks": {"public-orders": unfinished}}).ok()
    watermark = resumed.state["bookmarks"]["public-orders"]["replication_key_value"]
    assert watermark == unfinished["first_load"][0], "it ends where its first attempt would have ended"
    assert pipe.rows("select count(*) from raw.orders where note in ('changed', 'new')") == [(BIG_ROWS // 50 + 1,)]
    assert_equal(pipe)


@pytest.mark.parametrize("key", ["id", pytest.param("updated_at", marks=pytest.mark.long)])
def test_a_row_that_an_update_moves_among_rows_that_were_read_is_not_missed(pipe, key):
    pipe.do(BIG)
    pipe.do("delete from orders where id <= 1000")
    pipe.do("vacuum orders")
    # each range has a snapshot of its own
    pipe.tap |= {**SMALL_CHUNKS, "snapshot_seconds": 0, "chunks_outstanding": 1, "max_parallel": 1}
    processes = pipe.start({"public-orders": {**INCREMENTAL, "replication-key": key}})
    wait_for(lambda: pipe.rows("select to_regclass('raw.orders') is not null") == [(True,)])
    # after the blocks that have room
    wait_for(lambda: pipe.rows("select 1 from raw.orders offset 500 limit 1"))
    with pipe.warehouse() as warehouse, warehouse.transaction():
        # the target waits, and then the tap
        warehouse.execute("lock table raw.orders in exclusive mode")
        pipe.do(f"update orders set note = 'moved' where id > {BIG_ROWS - 200}")
        # and these will be read with their ranges
        new = f"generate_series({BIG_ROWS + 1}, {BIG_ROWS + 3000}) n"
        pipe.do(f"insert into orders (id, note) select n, repeat('new', 30) from {new}")
    with pipe.source() as source:
        early = "select count(*) from orders where note = 'moved' and ctid < '(25,0)'"
        assert (source.execute(early).fetchone() or (0,))[0] > 100
    done = pipe.finish(processes)
    assert "What was written while it was read is read again" in done.tap_log
    # they are merged, and not added and then removed
    assert "Rows that were read twice" not in done.target_log
    assert pipe.rows("select count(*) from raw.orders where note = 'moved'") == [(200,)]
    assert_equal(pipe)


@pytest.mark.long
def test_a_killed_full_read_for_a_new_column_resumes_where_it_stopped(pipe):
    pipe.do(BIG)
    pipe.tap |= SMALL_CHUNKS
    narrow = {"public-orders": {**INCREMENTAL, "select": ["id", "updated_at"]}}
    state = pipe.sync(narrow).ok().state
    catalog = pipe.catalog({"public-orders": INCREMENTAL})
    processes = pipe.start(catalog, state)
    wait_for(lambda: (pipe.directory / "states").read_text().count("\n") >= 4)
    kill(processes[-1])
    killed = pipe.finish(processes)
    synced = pipe.sync(catalog, killed.state, listen=True).ok()
    read = sum(message["encoding"]["rows"] for message in synced.messages if message["type"] == "BATCH")
    assert 0 < read < BIG_ROWS, "only rows that were not loaded are read again"
    assert_equal(pipe)


@pytest.mark.long
def test_runs_killed_at_random_moments_while_rows_change_end_equal_to_the_source(pipe):
    pipe.do(BIG)
    pipe.tap |= {**SMALL_CHUNKS, "snapshot_seconds": 0.2}
    catalog = pipe.catalog({"public-orders": INCREMENTAL})
    stop = threading.Event()

    def write() -> None:
        chance = random.Random(1)
        with pipe.source() as connection:
            while not stop.is_set():
                connection.execute(
                    "update orders set note = %s, updated_at = now() where id between %s and %s",
                    [f"w{chance.random()}", first := chance.randrange(BIG_ROWS), first + 50],
                )

    writer = threading.Thread(target=write)
    writer.start()
    try:
        state = None
        for attempt in range(CRASHES):
            processes = pipe.start(catalog, state)
            time.sleep(random.Random(attempt).uniform(0.05, 1.2))
            kill(random.Random(attempt).choice(processes))
            state = pipe.finish(processes).state or state
    finally:
        stop.set()
        writer.join()
    for _ in range(2):
        state = pipe.sync(catalog, state).ok().state
    assert_equal(pipe)


@pytest.mark.parametrize(
    ("settings", "most"),
    [
        pytest.param({"max_parallel": 3}, 6, id="two-a-reader"),
        pytest.param({"max_parallel": 3, "chunks_outstanding": 3}, 3, id="as-set", marks=pytest.mark.long),
    ],
)
def test_a_stalled_target_stops_the_tap_and_the_disk_use_stays_bounded(pipe, settings, most):
    pipe.do(BIG)
    pipe.tap |= {**SMALL_CHUNKS, **settings}
    tap, target = pipe.start({"public-orders": INCREMENTAL})
    wait_for(lambda: list(pipe.chunks.glob("run-*/*.copy")))
    target.send_signal(signal.SIGSTOP)
    wait_for(lambda: len(list(pipe.chunks.glob("run-*/*.copy"))) >= most)
    seen = []
    for _ in range(100):
        sizes = [path.stat().st_size for path in pipe.chunks.glob("run-*/*.copy")]
        seen.append((len(sizes), sum(sizes)))
        time.sleep(0.01)
    with pipe.source() as connection:
        ((transactions,),) = connection.execute(
            "select count(*) from pg_stat_activity where application_name like 'tidemark%%' and state = 'active'"
        ).fetchall()
    target.send_signal(signal.SIGCONT)
    pipe.finish([tap, target]).ok()
    assert max(count for count, _ in seen) == most
    assert max(size for _, size in seen) <= most * (0.08 * 2**20 + 1000)
    assert transactions == 0, "the tap reads nothing while there is no room"
    assert_equal(pipe)


def test_a_tap_without_a_reader_ends_by_itself_within_seconds(pipe):
    pipe.do(BIG)
    pipe.tap |= {**SMALL_CHUNKS, "chunks_outstanding": 1}
    catalog = pipe._file("catalog.json", pipe.catalog({"public-orders": INCREMENTAL}))
    config, _ = pipe.configs()
    read_end, write_end = os.pipe()
    tap = subprocess.Popen([TAP, "--config", config, "--catalog", catalog], stdout=write_end, stderr=subprocess.PIPE)
    os.close(write_end)
    # it has announced a chunk and waits until somebody loads it
    wait_for(lambda: select.select([read_end], [], [], 0)[0] and b'"BATCH"' in os.read(read_end, 65536))
    os.close(read_end)
    assert tap.wait(timeout=5) != 0
    tap.communicate()


@pytest.mark.long
def test_the_next_run_removes_a_killed_runs_files_but_not_a_live_runs(pipe):
    pipe.do(BIG)
    pipe.tap |= SMALL_CHUNKS
    catalog = pipe.catalog({"public-orders": INCREMENTAL})
    tap, target = pipe.start(catalog)
    wait_for(lambda: list(pipe.chunks.glob("run-*/*.copy")))
    target.send_signal(signal.SIGSTOP)
    kill(tap)
    target.kill()
    target.wait()
    left = set(pipe.chunks.glob("run-*"))
    assert left
    tap, target = pipe.start(catalog)
    wait_for(lambda: not any(path.exists() for path in left))
    target.send_signal(signal.SIGSTOP)
    other = subprocess.run(
        [TAP, "--config", pipe.configs()[0], "--catalog", pipe.directory / "catalog.json"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        check=False,
    )
    assert other.returncode == 0, other.stderr
    target.send_signal(signal.SIGCONT)
    pipe.finish([tap, target]).ok()
    assert_equal(pipe)


@pytest.mark.parametrize("victim", VICTIMS)
def test_a_full_table_stream_keeps_its_old_rows_until_the_new_ones_are_complete(pipe, victim):
    pipe.do(BIG.replace(" primary key", ""))
    pipe.tap |= SMALL_CHUNKS
    pipe.do("create table few as select * from orders where id <= 10; alter table orders rename to many")
    pipe.do("alter table few rename to orders")
    pipe.sync({"public-orders": FULL_TABLE}).ok()
    pipe.do("drop table orders; alter table many rename to orders")
    catalog = pipe.catalog({"public-orders": FULL_TABLE})
    processes = pipe.start(catalog)
    wait_for(lambda: pipe.rows("select count(*) from pg_class where relname like '\\_tidemark\\_stage%'") != [(0,)])
    kill(processes[victim])
    statuses = pipe.finish(processes)
    assert statuses.tap_status or statuses.target_status
    assert pipe.rows("select count(*) from raw.orders") == [(10,)]
    pipe.sync(catalog).ok()
    assert_equal(pipe)


def test_a_terminated_run_does_not_end_as_if_it_had_succeeded(pipe):
    pipe.do(BIG)
    pipe.tap |= SMALL_CHUNKS
    processes = pipe.start({"public-orders": INCREMENTAL})
    wait_for(lambda: list(pipe.chunks.glob("run-*/*.copy")))
    for process in processes:
        process.terminate()
    ended = pipe.finish(processes)
    # or that of a tap whose target has gone, if it saw that first
    assert ended.tap_status in {128 + signal.SIGTERM, 1}
    # or the signal's own status, if it had only just started
    assert ended.target_status in {128 + signal.SIGTERM, -signal.SIGTERM}


def test_a_lost_warehouse_is_reported_in_one_line(pipe):
    pipe.do(BIG)
    pipe.tap |= SMALL_CHUNKS
    processes = pipe.start({"public-orders": INCREMENTAL})
    wait_for(lambda: (pipe.directory / "states").read_text().count("\n") >= 2)
    with psycopg.connect(pipe.warehouse_url, dbname="postgres") as connection:
        connection.autocommit = True
        name = psycopg.conninfo.conninfo_to_dict(pipe.warehouse_url)["dbname"]
        connection.execute(f"alter database {name} allow_connections false")
        connection.execute("select pg_terminate_backend(pid) from pg_stat_activity where datname = %s", [name])
    ended = pipe.finish(processes)
    assert ended.target_status == 1
    assert "Traceback" not in ended.target_log
    (error,) = [line for line in ended.target_log.splitlines() if "| ERROR" in line]
    assert "public-orders" in error
    assert ended.codes == {"warehouse_unreachable"}
