"""How much WAL the source keeps for the slot, and what a run does if it is too much, or if its target stands still."""

from __future__ import annotations

import os
import signal
import time

import psycopg
import pytest

from tests.singer.test_log_based import LOG_BASED, SLOT, follow, log_pipe, publish, same  # noqa: F401 - a fixture

THINGS = {"public-things": LOG_BASED}
SETUP = "create table things (id bigint primary key, name text); insert into things values (1, 'n')"
# about 40 MB
WAL = "select count(pg_logical_emit_message(false, 'test', repeat('x', 100000))) from generate_series(1, 400)"


def has_slot(pipe) -> bool:
    with pipe.source() as connection:
        return (
            connection.execute("select from pg_replication_slots where slot_name = %s", [SLOT]).fetchone() is not None
        )


@pytest.fixture
def budgeted(log_pipe):  # noqa: F811
    """A pipe whose slot may keep 20 MB of WAL."""
    log_pipe.do(SETUP)
    publish(log_pipe, "things")
    follow(log_pipe, "things")
    log_pipe.tap["max_slot_wal_mb"] = 20
    return log_pipe


def test_a_run_that_begins_over_the_wal_budget_warns_and_succeeds_once_it_has_caught_up(budgeted):
    budgeted.do(WAL)
    # a server writes such a record every 15 s by itself; what it keeps begins at one
    budgeted.do("select pg_log_standby_snapshot(); insert into things values (2, 'n')")
    done = follow(budgeted, "things")
    assert "max_slot_wal_mb allows 20 MB; this run fails unless it catches up" in done.tap_log
    assert same(budgeted, "things")
    assert "max_slot_wal_mb" not in follow(budgeted, "things").tap_log


def test_a_run_that_ends_over_the_wal_budget_has_loaded_all_and_fails_with_who_holds_the_wal(budgeted):
    with psycopg.connect(budgeted.source_url, application_name="forgotten") as writer:
        writer.execute("create table held (id int)")
        budgeted.do(f"{WAL}; insert into things values (2, 'n')")
        line = budgeted.sync(THINGS, budgeted.state).refused("slot_wal_exceeded")
        assert "the oldest transaction is of pid" in line
        assert "forgotten" in line
        assert same(budgeted, "things")
        assert has_slot(budgeted)
        budgeted.tap["max_slot_wal_action"] = "drop"
        line = budgeted.sync(THINGS, budgeted.state).refused("slot_wal_exceeded")
        assert "The slot was dropped (max_slot_wal_action); `tidemark slots repair`" in line
        assert not has_slot(budgeted)
        budgeted.sync(THINGS, budgeted.state).refused("slot_missing")


@pytest.mark.long
def test_a_target_that_stands_still_ends_the_session_and_then_the_budget_counts(budgeted):
    budgeted.tap |= {"stall_seconds": 10, "chunks_outstanding": 1, "max_slot_wal_action": "drop"}
    budgeted.tap["replication_max_run_seconds"] = 600
    processes = budgeted.start(THINGS, budgeted.state)
    deadline = time.monotonic() + 30
    while not budgeted.rows("select from raw._tidemark_runs where outcome = 'running'"):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    os.kill(processes[-1].pid, signal.SIGSTOP)
    try:
        for number in range(2, 5):
            budgeted.do(f"{WAL}; insert into things values ({number}, 'n')")
            time.sleep(2.5)
        assert processes[0].wait(timeout=60)
    finally:
        os.kill(processes[-1].pid, signal.SIGCONT)
    line = budgeted.finish(processes).refused("slot_wal_exceeded")
    assert "after this: The target has loaded nothing for 10 s (stall_seconds)" in line
    assert not has_slot(budgeted)


@pytest.mark.long
def test_a_merge_that_takes_longer_than_a_standstill_may_does_not_end_the_run(budgeted):
    budgeted.tap["stall_seconds"] = 10
    with budgeted.warehouse() as connection:
        connection.execute(
            "create function raw.wait() returns trigger language plpgsql as "
            "$$ begin perform pg_sleep(20); return new; end $$;"
            "create trigger wait before update on raw.things for each row execute function raw.wait()"
        )
    budgeted.do("update things set name = 'slow' where id = 1")
    follow(budgeted, "things")
    assert same(budgeted, "things")
