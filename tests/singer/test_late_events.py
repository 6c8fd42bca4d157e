"""A stream that fails while others of its ranges are being read: the run ends in seconds and says why."""

from __future__ import annotations

import time

import pytest

from tests.singer.conftest import FULL_TABLE, INCREMENTAL

MANY = 4000
ROWS = """
    create table {name} (id int primary key, note text, updated_at timestamptz not null default now());
    insert into {name} select n, repeat(md5(n::text), 20), now() from generate_series(1, 4000) n;
    analyze {name};
"""
_SECONDS = 20


def in_time(pipe, streams):
    """Run, and check that the run ends by itself soon; return its result."""
    began = time.monotonic()
    processes = pipe.start(streams)
    try:
        for process in processes:
            process.wait(timeout=_SECONDS)
    finally:
        for process in processes:
            process.kill()
    assert time.monotonic() - began < _SECONDS
    return pipe.finish(processes)


@pytest.mark.parametrize(
    ("method", "bad"),
    [
        pytest.param(INCREMENTAL, 1, id="incremental-first"),
        pytest.param(FULL_TABLE, MANY, id="full-table-last"),
        pytest.param(INCREMENTAL, MANY, id="incremental-last", marks=pytest.mark.long),
        pytest.param(FULL_TABLE, MANY // 2, id="full-table-middle", marks=pytest.mark.long),
    ],
)
def test_an_unreadable_row_fails_its_stream_in_seconds_and_the_other_streams_are_loaded(pipe, method, bad):
    pipe.do(ROWS.format(name="big") + ROWS.format(name="other"))
    pipe.tap |= {"chunk_size_mb": 0.2, "where": {"public-big": f"1 / (id - {bad}) is not null"}}
    synced = in_time(pipe, {"public-big": method, "public-other": method})
    assert (synced.tap_status, synced.target_status) == (1, 0)
    assert "Reading public-big failed: division by zero" in synced.errors[0]
    assert pipe.rows("select count(*) from raw.other") == [(MANY,)]
    # with only one stream, the target is gone after it failed
    alone = in_time(pipe, {"public-big": method})
    assert (alone.tap_status, alone.target_status) == (1, 0)
    assert not list(pipe.chunks.glob("run-*"))


@pytest.mark.parametrize(
    ("method", "on_error"),
    [
        pytest.param(INCREMENTAL, "continue", id="incremental"),
        pytest.param(FULL_TABLE, "continue", id="full-table", marks=pytest.mark.long),
        pytest.param(INCREMENTAL, "stop", id="stop", marks=pytest.mark.long),
    ],
)
def test_a_row_that_the_warehouse_refuses_ends_the_run_in_seconds(pipe, method, on_error):
    pipe.do(ROWS.format(name="big"))
    pipe.tap |= {"chunk_size_mb": 0.2}
    pipe.target |= {"on_stream_error": on_error}
    in_time(pipe, {"public-big": INCREMENTAL})
    with pipe.warehouse() as connection:
        connection.execute("alter table raw.big add check (id <> 1555) not valid")
    pipe.do("update big set note = 'changed'")
    synced = in_time(pipe, {"public-big": method})
    assert synced.target_status == 1
    assert "violates check constraint" in synced.target_log
    # with "stop", the next run removes this one's files
    assert on_error == "stop" or not list(pipe.chunks.glob("run-*"))
