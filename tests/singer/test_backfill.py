"""Backfills read rows again whatever the bookmark says, and change nothing else."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING, Any

import pytest

from tests.programs import TAP, TARGET
from tests.singer.conftest import FULL_TABLE, INCREMENTAL, kill
from tests.singer.test_crashes import BIG, BIG_ROWS, SMALL_CHUNKS, assert_equal, wait_for

if TYPE_CHECKING:
    from tests.singer.conftest import Pipe, Synced

STREAMS = {"public-orders": INCREMENTAL}
JANUARY = {"from": "2026-01-01T00:00:00Z", "to": "2026-02-01"}
# queries for everything that decides the next run, and for how fresh a stream is
STANDING = """
    select bookmark, first_load, has_rows, shape, (
        select max(extracted_at) from raw._tidemark_runs runs where runs.stream = state.stream and outcome = 'succeeded'
    ) from raw._tidemark_state state
"""


def make_orders(pipe: Pipe, type_: str = "timestamptz") -> None:
    """Create one order per day from December to March, and one without a stamp."""
    pipe.do(f"""
        create table orders (id int primary key, note text, updated_at {type_});
        insert into orders select n, 'first', timestamp '2025-12-01' + n * interval '1 day'
        from generate_series(0, 120) n;
        insert into orders values (1000, 'first', null);
    """)


def restore(pipe: Pipe) -> None:
    """Change all rows without changing their replication key."""
    pipe.do("update orders set note = 'restored'")


def backfill(pipe: Pipe, asked: dict[str, Any], state: dict[str, Any] | None = None, **options: Any) -> Synced:
    """Read a part of the stream again, as Meltano does without saving state: the tap gets no state."""
    regular = dict(pipe.tap)
    pipe.tap["backfill"] = {"public-orders": asked}
    try:
        return pipe.sync(STREAMS, state, **options)
    finally:
        pipe.tap = regular


def restored(pipe: Pipe) -> list[Any]:
    """Return the first and the last of the rows that were read again."""
    return list(
        *pipe.rows(
            "select min(updated_at)::date::text, max(updated_at)::date::text, count(*) from raw.orders "
            "where note = 'restored'"
        )
    )


def rows_read(synced: Synced) -> int:
    return sum(message["encoding"]["rows"] for message in synced.messages if message["type"] == "BATCH")


@pytest.mark.parametrize(
    "with_state", [pytest.param(False, marks=pytest.mark.long), True], ids=["without state", "with state"]
)
def test_a_backfill_loads_the_rows_of_its_range_and_changes_nothing_else(pipe, with_state):
    make_orders(pipe)
    state = pipe.sync(STREAMS).ok().state
    restore(pipe)
    standing = pipe.rows(STANDING)
    done = backfill(pipe, JANUARY, state if with_state else None, listen=True).ok()
    assert rows_read(done) == 31
    assert restored(pipe) == ["2026-01-01", "2026-01-31", 31]
    assert pipe.rows(STANDING) == standing
    assert not with_state or done.state == state
    (run,) = pipe.rows(
        "select outcome, rows_read, rows_updated, bookmark_before = bookmark_after, extracted_at, lag "
        "from raw._tidemark_runs order by started_at desc limit 1"
    )
    assert run == ("succeeded", 31, 31, True, None, None)
    # the next run reads what it would have read anyway: the row without a stamp
    assert rows_read(pipe.sync(STREAMS, state, listen=True).ok()) == 1
    assert restored(pipe) == ["2026-01-01", "2026-01-31", 32]


@pytest.mark.parametrize(
    ("asked", "rows"),
    [
        pytest.param({}, 122, id="all, including those without a stamp"),
        pytest.param({"from": "2026-03-01"}, 31, id="from", marks=pytest.mark.long),
        pytest.param({"to": "2025-12-11T00:00:00+00:00"}, 10, id="to", marks=pytest.mark.long),
        pytest.param({"from": "2025-12-02T01:00:00+01:00", "to": "2025-12-03"}, 1, id="an offset"),
    ],
)
def test_a_range_may_have_no_bound(pipe, asked, rows):
    make_orders(pipe)
    pipe.sync(STREAMS).ok()
    restore(pipe)
    assert rows_read(backfill(pipe, asked, listen=True).ok()) == rows
    assert restored(pipe)[-1] == rows


@pytest.mark.long
def test_a_large_table_is_backfilled_in_parts_and_a_small_range_in_one(pipe):
    pipe.do(BIG)
    pipe.do("analyze orders")
    pipe.tap |= SMALL_CHUNKS
    state = pipe.sync(STREAMS).ok().state
    restore(pipe)
    few = backfill(pipe, {"from": "2026-01-01T01:00:00Z", "to": "2026-01-01T01:10:00Z"}, listen=True).ok()
    assert [message["encoding"]["rows"] for message in few.messages if message["type"] == "BATCH"] == [600, 0]
    every = backfill(pipe, {}, state, listen=True).ok()
    assert rows_read(every) == BIG_ROWS
    chunks = [message["encoding"] for message in every.messages if message["type"] == "BATCH"]
    assert len(chunks) > 10
    assert {chunk["blocks"] for chunk in chunks} == {None}, "this is not a first load"
    assert_equal(pipe)


@pytest.mark.long
def test_a_backfill_continues_with_a_new_snapshot_when_the_old_one_is_too_old(pipe):
    pipe.do(BIG)
    pipe.sync(STREAMS).ok()
    restore(pipe)
    pipe.tap |= {"chunk_size_mb": 0.5, "snapshot_seconds": 0}
    done = backfill(pipe, {}, listen=True).ok()
    assert len({message["encoding"]["snapshot"] for message in done.messages if message["type"] == "BATCH"}) > 1
    assert_equal(pipe)


@pytest.mark.long
@pytest.mark.parametrize("victim", [pytest.param(0, id="tap", marks=pytest.mark.long), pytest.param(-1, id="target")])
def test_a_killed_backfill_succeeds_when_run_again(pipe, victim):
    pipe.do(BIG)
    state = pipe.sync(STREAMS).ok().state
    restore(pipe)
    standing = pipe.rows(STANDING)
    pipe.tap |= {**SMALL_CHUNKS, "backfill": {"public-orders": {}}}
    processes = pipe.start(STREAMS)
    wait_for(lambda: pipe.rows("select 1 from raw.orders where note = 'restored' limit 1"))
    kill(processes[victim])
    pipe.finish(processes)
    assert 0 < restored(pipe)[-1] < BIG_ROWS
    assert pipe.rows(STANDING) == standing
    backfill(pipe, {}).ok()
    assert_equal(pipe)
    assert [outcome for (outcome,) in pipe.rows("select outcome from raw._tidemark_runs order by started_at")] == [
        *("succeeded", "killed", "succeeded"),
    ]
    del pipe.tap["backfill"]
    assert rows_read(pipe.sync(STREAMS, state, listen=True).ok()) == 0


def test_after_a_backfill_the_next_run_still_reads_a_newly_selected_column_from_the_beginning(pipe):
    make_orders(pipe)
    narrow = {"public-orders": {**INCREMENTAL, "select": ["id", "updated_at"]}}
    state = pipe.sync(narrow).ok().state
    state = backfill(pipe, JANUARY, state).ok().state
    assert pipe.rows("select count(note) from raw.orders") == [(31,)]
    pipe.sync(STREAMS, state).ok()
    assert pipe.rows("select count(note) from raw.orders") == [(122,)]


@pytest.mark.long
def test_a_backfill_in_between_does_not_reset_an_unfinished_full_read(pipe):
    pipe.do(BIG)
    narrow = {"public-orders": {**INCREMENTAL, "select": ["id", "updated_at"]}}
    pipe.tap |= SMALL_CHUNKS
    state = pipe.sync(narrow).ok().state
    processes = pipe.start(STREAMS, state)
    wait_for(lambda: (pipe.directory / "states").read_text().count("\n") >= 4)
    kill(processes[-1])
    killed = pipe.finish(processes)
    backfill(pipe, {"to": "2026-01-01T00:10:00Z"}).ok()
    assert 0 < rows_read(pipe.sync(STREAMS, killed.state, listen=True).ok()) < BIG_ROWS
    assert_equal(pipe)


@pytest.mark.long
def test_a_row_that_a_regular_run_read_later_is_not_overwritten(pipe):
    make_orders(pipe)
    state = pipe.sync(STREAMS).ok().state
    restore(pipe)
    pipe.tap["backfill"] = {"public-orders": {}}
    tap, target = pipe.configs()
    catalog = pipe._file("backfilled.json", pipe.catalog(STREAMS))
    reading = subprocess.Popen([TAP, "--config", tap, "--catalog", catalog], stdout=subprocess.PIPE, text=True)
    assert reading.stdout
    messages = []
    while not messages or '"last": true' not in messages[-1]:
        messages.append(reading.stdout.readline())
    # its rows are in transit, and a regular run loads before it
    del pipe.tap["backfill"]
    pipe.do("update orders set note = 'newer', updated_at = now() where id = 7")
    pipe.sync(STREAMS, state).ok()
    subprocess.run([TARGET, "--config", target], input="".join(messages), text=True, capture_output=True, check=False)
    reading.kill()
    reading.communicate()
    assert pipe.rows("select note from raw.orders where id = 7") == [("newer",)]


def test_a_range_of_numbers_compares_numbers(pipe):
    make_orders(pipe)
    by_id = {"public-orders": {"replication-method": "INCREMENTAL", "replication-key": "id"}}
    state = pipe.sync(by_id).ok().state
    restore(pipe)
    standing = pipe.rows(STANDING)
    # as text, 9 would sort after 100
    pipe.tap["backfill"] = {"public-orders": {"from": 9, "to": "100"}}
    pipe.sync(by_id, state).ok()
    assert pipe.rows("select min(id), max(id) from raw.orders where note = 'restored'") == [(9, 99)]
    assert pipe.rows(STANDING) == standing


@pytest.mark.parametrize("type_", ["timestamp", pytest.param("date", marks=pytest.mark.long)])
def test_a_range_of_local_times_compares_local_times_and_an_instant_needs_its_zone(pipe, type_):
    make_orders(pipe, type_)
    pipe.sync(STREAMS).ok()
    restore(pipe)
    backfill(pipe, {"from": "2025-12-31 12:00", "to": "2026-01-02T12:00:00"}).ok()
    assert restored(pipe) == ["2026-01-01", "2026-01-02", 2]
    assert "timestamp_timezone" in backfill(pipe, JANUARY).refused("setting_invalid")
    # midnight in Tokyo
    pipe.tap["timestamp_timezone"] = "Asia/Tokyo"
    backfill(pipe, {"from": "2025-12-30T15:00:00Z", "to": "2026-01-01"}).ok()
    assert restored(pipe) == ["2025-12-31", "2026-01-02", 3]


def test_a_backfill_reads_a_full_table_stream_in_full(pipe):
    make_orders(pipe)
    whole = {"public-orders": FULL_TABLE}
    pipe.sync(whole).ok()
    restore(pipe)
    pipe.tap["backfill"] = {"public-orders": {}}
    pipe.sync(whole).ok()
    assert restored(pipe)[-1] == 122
    pipe.tap["backfill"] = {"public-orders": JANUARY}
    error = pipe.sync(whole).refused("setting_invalid")
    assert "public-orders is read whole at every run, so no range of it can be backfilled" in error


@pytest.mark.long
def test_a_stream_that_was_never_fully_loaded_is_not_backfilled(pipe):
    pipe.do(BIG)
    error = backfill(pipe, {}).refused("not_loaded_yet")
    assert "public-orders is to be backfilled, and raw.orders does not hold all of it" in error
    assert "run the pipeline without `backfill` first" in error
    pipe.tap |= SMALL_CHUNKS
    processes = pipe.start(STREAMS)
    wait_for(lambda: (pipe.directory / "states").read_text().count("\n") >= 4)
    kill(processes[-1])
    cut_short = pipe.finish(processes)
    kept = pipe.rows("select count(*) from raw.orders")
    assert "run the pipeline without `backfill` first" in backfill(pipe, {}, cut_short.state).target_log
    assert pipe.rows("select count(*) from raw.orders") == kept
    # the first load resumes where it stopped
    assert rows_read(pipe.sync(STREAMS, cut_short.state, listen=True).ok()) < BIG_ROWS
    assert_equal(pipe)


@pytest.mark.parametrize(
    ("setting", "error"),
    [
        ({"public-order": {}}, "`backfill` names public-order, which is not selected; selected are public-orders."),
        ({"public-orders": {"from": "2026-02-01", "to": "2026-02-01"}}, "from must be before to"),
        ({"public-orders": {"from": "soon"}}, "has from 'soon', and its replication key updated_at is of type"),
        ({"public-orders": {"to": 17}}, "has to '17', and its replication key updated_at is of type"),
        ({"public-orders": {"since": "2026-02-01"}}, "must be without since (its parts are "),
    ],
    ids=["not selected", "an empty range", "no time", "a number", "no limit"],
)
def test_an_impossible_setting_is_refused_in_one_line_before_anything_is_read(pipe, setting, error):
    make_orders(pipe)
    pipe.tap["backfill"] = setting
    refused = pipe.sync(STREAMS, listen=True)
    assert refused.tap_status != 0
    assert not refused.messages
    assert len([line for line in refused.tap_log.splitlines() if error in line]) == 1
    assert "Traceback" not in refused.tap_log
    assert pipe.rows("select to_regclass('raw.orders')") == [(None,)]


def test_a_bound_that_is_not_a_number_is_refused(pipe):
    make_orders(pipe)
    pipe.tap["backfill"] = {"public-orders": {"from": "2026-01-01"}}
    by_id = {"public-orders": {"replication-method": "INCREMENTAL", "replication-key": "id"}}
    error = pipe.sync(by_id).refused("setting_invalid")
    assert "has from '2026-01-01', and its replication key id is of type integer" in error


def test_records_are_not_backfilled(pipe):
    make_orders(pipe)
    state = pipe.sync(STREAMS).ok().state
    pipe.tap["use_copy"] = False
    error = backfill(pipe, {}, state).refused("setting_invalid")
    assert "public-orders can't be backfilled, because it isn't sent in chunks: use_copy is off" in error
