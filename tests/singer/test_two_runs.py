"""Two simultaneous runs into one table: one continues, the other names it. A killed run excludes nobody."""

from __future__ import annotations

import os
import signal
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from singer_postgres.core.warehouse import tables
from singer_postgres.core.warehouse.system_tables import SystemTable
from tests.singer.conftest import INCREMENTAL, kill
from tests.singer.test_crashes import BIG, SMALL_CHUNKS, assert_equal, wait_for

if TYPE_CHECKING:
    from pathlib import Path

    from tests.singer.conftest import Pipe, Synced

# `make chaos` runs more of them
RACES = 30 if "CRASHES" in os.environ else 2
STREAMS = {"public-orders": INCREMENTAL}


@pytest.fixture
def twin(pipe: Pipe, tmp_path: Path) -> Pipe:
    """The same source, warehouse and chunks, used from another directory."""
    pipe.do(BIG)
    pipe.tap |= {**SMALL_CHUNKS, "chunk_dir": str(pipe.chunks)}
    return replace(pipe, directory=tmp_path)


def test_two_runs_that_both_find_no_table_of_tidemarks_own_make_it_once(pipe):
    kept = SystemTable("kept", ("create table {} (id int)",))
    waiting = "select from pg_locks where locktype = 'advisory' and not granted"
    with pipe.warehouse() as first, pipe.warehouse() as second, ThreadPoolExecutor() as other:
        with first.transaction():
            kept.ensure(first, "public")
            run = other.submit(kept.ensure, second, "public")
            wait_for(lambda: pipe.rows(waiting))
        run.result()
        with first.transaction():
            tables.ensure_schema(first, "new")
            run = other.submit(tables.ensure_schema, second, "new")
            wait_for(lambda: pipe.rows("select from pg_locks where not granted"))
        run.result()


def stand_still(pipe: Pipe) -> list:
    """Start a run and suspend it in the middle of its load."""
    processes = pipe.start(STREAMS)
    wait_for(lambda: (pipe.directory / "states").read_text().count("\n") >= 2)
    processes[-1].send_signal(signal.SIGSTOP)
    return processes


def assert_busy(second: Synced) -> None:
    assert second.target_status == os.EX_TEMPFAIL, second.target_log
    (error,) = [line for line in second.target_log.splitlines() if "| ERROR" in line]
    assert "run_busy" in second.codes
    assert "Another run is loading public-orders into raw.orders (pid " in error


@pytest.mark.parametrize("records", [False, pytest.param(True, marks=pytest.mark.long)], ids=["chunks", "records"])
def test_a_second_run_names_the_first_and_nothing_is_loaded_twice(pipe, twin, records):
    first = stand_still(pipe)
    if records:
        twin.tap["use_copy"] = False
    assert_busy(twin.sync(STREAMS))
    first[-1].send_signal(signal.SIGCONT)
    pipe.finish(first).ok()
    assert_equal(pipe)


def test_a_killed_run_does_not_exclude_the_next(pipe, twin):
    first = stand_still(pipe)
    for process in first:
        kill(process)
    twin.sync(STREAMS).ok()
    assert_equal(pipe)


def break_connections(pipe: Pipe) -> None:
    with pipe.warehouse() as connection:
        connection.execute(
            "select pg_terminate_backend(pid) from pg_stat_activity where application_name like 'tidemark target%'"
        )


def test_a_run_that_lost_its_connections_continues_if_no_other_run_began(pipe):
    pipe.do(BIG)
    pipe.tap |= SMALL_CHUNKS
    first = stand_still(pipe)
    break_connections(pipe)
    first[-1].send_signal(signal.SIGCONT)
    pipe.finish(first).ok()
    assert_equal(pipe)


def test_a_run_that_lost_its_lock_to_another_stops_loading(pipe, twin):
    first = stand_still(pipe)
    break_connections(pipe)
    twin.sync(STREAMS).ok()
    first[-1].send_signal(signal.SIGCONT)
    ended = pipe.finish(first)
    assert ended.target_status == 1
    assert "another run has begun to load it" in ended.target_log
    assert "lock_lost" in ended.codes
    assert_equal(pipe)
    outcomes = pipe.rows("select outcome from raw._tidemark_runs order by started_at")
    assert outcomes == [("failed",), ("succeeded",)]


def test_runs_that_race_do_not_interleave(pipe, twin):
    state, busy = None, 0
    for turn in range(RACES):
        pipe.do(f"update orders set note = 'turn {turn}', updated_at = now() where id % 3 = {turn % 3}")
        started = [each.start(STREAMS, state) for each in (pipe, twin)]
        ended = [each.finish(processes) for each, processes in zip((pipe, twin), started, strict=True)]
        for each in ended:
            if each.target_status == 0:
                state = each.ok().state
            else:
                assert_busy(each)
                busy += 1
        assert_equal(pipe)
    assert busy
