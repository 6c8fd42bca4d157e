"""Errors that are retried and errors that are not."""

from __future__ import annotations

import threading
import time

from tests.singer.conftest import FULL_TABLE, INCREMENTAL

ORDERS = """
    create table orders (id int primary key, note text, updated_at timestamptz not null default now());
    insert into orders select n, 'first' from generate_series(1, 100) n;
"""
STREAMS = {"public-orders": INCREMENTAL}


def test_a_load_that_the_server_ends_in_a_deadlock_is_retried(pipe):
    pipe.do(ORDERS)
    state = pipe.sync(STREAMS).ok().state
    pipe.do("update orders set note = 'second', updated_at = now()")
    with pipe.warehouse() as other, pipe.warehouse() as watcher:
        # this session looks for deadlocks late, so that the server ends the load instead
        other.execute("set deadlock_timeout = '1min'")
        other.execute("begin; select from raw.orders where id = 50 for update")
        processes = pipe.start(STREAMS, state)
        waiting = "select 1 from pg_stat_activity where wait_event_type = 'Lock' and datname = current_database()"
        while watcher.execute(waiting).fetchone() is None:
            time.sleep(0.05)
        thread = threading.Thread(target=other.execute, args=["select from raw.orders for update"])
        thread.start()
        thread.join(60)
        assert not thread.is_alive()
        other.execute("rollback")
        synced = pipe.finish(processes).ok()
    assert "deadlock detected" in synced.target_log
    assert pipe.rows("select note, count(*) from raw.orders group by 1") == [("second", 100)]


def test_a_full_read_that_outlasts_its_snapshot_fails_and_the_old_rows_stay(pipe):
    pipe.do(ORDERS)
    streams = {"public-orders": FULL_TABLE}
    pipe.sync(streams).ok()
    pipe.do("insert into orders select n, repeat('x', 500) from generate_series(101, 60000) n")
    pipe.tap |= {"snapshot_seconds": 0.05, "chunk_size_mb": 1, "chunks_outstanding": 1, "max_parallel": 1}
    assert "snapshot_seconds" in pipe.sync(streams).refused("snapshot_expired")
    assert pipe.rows("select count(*) from raw.orders") == [(100,)]
