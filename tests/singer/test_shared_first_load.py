"""A first load that several runs share, each of them a part of the table's blocks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from singer_postgres.core.load_part import LoadPart
from singer_postgres.core.source import identity, relations
from singer_postgres.core.warehouse.load_parts import LoadParts, SharedLoad
from singer_postgres.core.warehouse.state_table import StateTable
from singer_postgres.core.wire import FIRST_LOAD, SHAPE
from tests.singer.conftest import INCREMENTAL

if TYPE_CHECKING:
    from tests.singer.conftest import Pipe, Synced

STREAM = "public-events"
EVENTS = {STREAM: INCREMENTAL}
MIDDLE = 40


@pytest.fixture
def halves(pipe: Pipe) -> LoadParts:
    """A table whose first load is divided into two parts."""
    pipe.do(
        "create table events (id int primary key, note text, updated_at timestamptz not null default now());"
        "insert into events select n, repeat('x', 500), now() - interval '1 day' from generate_series(1, 1000) n;"
    )
    with pipe.source() as source, pipe.warehouse() as warehouse:
        (leaf,) = relations.find(source, "public", "events").leaves
        found = LoadParts("raw", identity.identity(source))
        warehouse.execute("create schema raw")
        found.ensure(warehouse)
        ranges = [(leaf.relfilenode, 0, MIDDLE), (leaf.relfilenode, MIDDLE, leaf.blocks)]
        found.open(warehouse, STREAM, "events", load_id="load", parts=[([each], 1) for each in ranges])
    return found


def now(pipe: Pipe, parts: LoadParts) -> SharedLoad:
    with pipe.warehouse() as warehouse:
        return parts.loads(warehouse)[STREAM]


def load(pipe: Pipe, parts: LoadParts, number: int, told: SharedLoad | None = None, streams: Any = EVENTS) -> Synced:
    """Load a part, as `tidemark run --shard` has it done."""
    told = told or now(pipe, parts)
    part = LoadPart(told.id, number, told.parts[number - 1].ranges, told.watermark, told.columns)
    setting: dict[str, Any] = {STREAM: part.to_json()}
    pipe.tap["first_load_part"] = setting
    try:
        return pipe.sync(streams)
    finally:
        del pipe.tap["first_load_part"]


def complete(pipe: Pipe, parts: LoadParts, streams: Any = EVENTS) -> None:
    """Complete the load with an ordinary run, as `tidemark run --shard` does once all parts are loaded."""
    loaded = now(pipe, parts)
    assert loaded.is_complete
    with pipe.warehouse() as warehouse:
        StateTable("raw").set_ranges(warehouse, parts.source, STREAM, loaded.done, has_rows=True)
        parts.close(warehouse, STREAM)
    entry = {FIRST_LOAD: [loaded.watermark, [list(blocks) for blocks in loaded.done]], SHAPE: loaded.columns}
    pipe.sync(streams, {"bookmarks": {STREAM: entry}}).ok()
    assert pipe.rows("select bookmark, first_load from raw._tidemark_state") == [(loaded.watermark, [])]


def test_a_row_that_moves_into_another_part_is_there_once_with_its_last_values(pipe, halves):
    load(pipe, halves, 1).ok()
    begun = now(pipe, halves)
    # room in the last block, which belongs to the other part
    pipe.do("delete from events where id > 996")
    pipe.do("vacuum events")
    pipe.do("update events set note = repeat('y', 500), updated_at = now() where id <= 3")
    load(pipe, halves, 2).ok()
    # the watermark is that of the first part, so a later run reads what changed in between
    assert now(pipe, halves).watermark == begun.watermark
    # no part is the whole stream
    assert pipe.rows("select bookmark, first_load from raw._tidemark_state") == [(None, [])]
    complete(pipe, halves)
    assert pipe.rows("select count(*), count(distinct id) from raw.events") == [(996, 996)]
    assert pipe.rows("select count(*) from raw.events where note like 'y%'") == [(3,)]


@pytest.mark.parametrize("key", ["id", "updated_at"])
def test_a_row_that_moves_into_a_part_that_was_loaded_is_not_missed(pipe, halves, key):
    by_key = {STREAM: {**INCREMENTAL, "replication-key": key}}
    pipe.do("delete from events where id <= 50")
    pipe.do("vacuum events")
    load(pipe, halves, 1, streams=by_key).ok()
    # with no new stamp
    pipe.do("update events set note = repeat('y', 500) where id between 800 and 830")
    load(pipe, halves, 2, streams=by_key).ok()
    there = "select count(*) from raw.events where id between 800 and 830"
    assert pipe.rows(there) == [(0,)]
    complete(pipe, halves, by_key)
    assert pipe.rows(there) == [(31,)]
    assert pipe.rows("select count(*), count(distinct id) from raw.events") == [(950, 950)]


def test_parts_are_copied_into_a_table_that_gets_its_key_once_it_is_whole(pipe, halves):
    keys = "select count(*) from pg_index where indrelid = 'raw.events'::regclass and indisunique"
    for number in (1, 2):
        load(pipe, halves, number).ok()
        assert pipe.rows(keys) == [(0,)]
    complete(pipe, halves)
    assert pipe.rows(keys) == [(1,)]
    assert pipe.rows("select count(*), count(distinct id) from raw.events") == [(1000, 1000)]


def test_a_column_that_was_added_meanwhile_has_its_value_in_the_rows_of_all_parts(pipe, halves):
    before = pipe.catalog(EVENTS)
    load(pipe, halves, 1).ok()
    pipe.do("alter table events add amount int default 7")
    # without a new stamp
    pipe.do("update events set amount = 8 where id % 10 = 0")
    load(pipe, halves, 2).ok()
    # as if this run had begun before the column was there
    load(pipe, halves, 1, streams=before).ok()
    complete(pipe, halves)
    values = "select count(*), count(*) filter (where amount = 7), count(*) filter (where amount = 8) from raw.events"
    assert pipe.rows(values) == [(1000, 900, 100)]


def test_a_column_that_was_dropped_meanwhile_has_the_load_begun_again(pipe, halves):
    pipe.do("alter table events add amount int default 7")
    load(pipe, halves, 1).ok()
    pipe.do("alter table events drop amount")
    assert "since its first load was divided into parts" in load(pipe, halves, 2).refused("table_changed")


def test_only_one_run_begins_a_shared_load(pipe, halves):
    nobody_had = now(pipe, halves)
    load(pipe, halves, 1, nobody_had).ok()
    begun = now(pipe, halves)
    # as if it had taken its snapshot at the same moment
    assert "at the same moment" in load(pipe, halves, 2, nobody_had).refused("lock_lost")
    assert (now(pipe, halves).watermark, now(pipe, halves).columns) == (begun.watermark, begun.columns)


def test_a_part_that_no_shard_has_set_is_refused_in_one_line(pipe):
    pipe.do("create table events (id int primary key, updated_at timestamptz)")
    pipe.tap["first_load_part"] = {STREAM: {"load": "x"}}
    assert "only `tidemark run --shard` sets it" in pipe.sync(EVENTS).refused("setting_invalid")


def test_each_run_that_shares_a_load_has_its_own_outcome_and_all_that_its_parts_cost(pipe, halves):
    def runs() -> dict[str, tuple[str, bool, int]]:
        query = "select run_id, outcome, ended_at is not null, source_bytes from raw._tidemark_runs"
        return {run: facts for run, *facts in pipe.rows(query)}

    pipe.target["run_id"] = "one"
    load(pipe, halves, 1).ok()
    # its parts are loaded, and the table is not complete
    assert runs()["one"][:2] == ["running", True]
    with pipe.warehouse() as connection:
        # as while it loads a further part
        connection.execute("update raw._tidemark_runs set ended_at = null")
        connection.execute("alter table raw.events add constraint refused check (id < 0) not valid")
        pipe.target["run_id"] = "two"
        load(pipe, halves, 2).refused("constraint_violation")
        assert (runs()["one"][0], runs()["two"][0]) == ("running", "failed")
        connection.execute("update raw._tidemark_runs set ended_at = now() where run_id = 'one'")
        connection.execute("alter table raw.events drop constraint refused")
    load(pipe, halves, 2).ok()
    outcome, _, cost = runs()["two"]
    assert outcome == "failed"
    complete(pipe, halves)
    assert [runs()[run][0] for run in ("one", "two")] == ["succeeded", "succeeded"]
    assert runs()["two"][2] >= cost > 100_000
    assert pipe.rows("select killed, succeeded, failed from raw._tidemark_stream_totals") == [
        (0, 1, {"constraint_violation": 1})
    ]


def test_a_run_from_the_beginning_ends_a_shared_load_and_its_late_parts_load_nothing(pipe, halves):
    load(pipe, halves, 1).ok()
    late = now(pipe, halves)
    pipe.sync(EVENTS).ok()
    assert "has ended, or begun again" in load(pipe, halves, 2, late).refused("lock_lost")
    assert pipe.rows("select count(*), count(distinct id) from raw.events") == [(1000, 1000)]
    assert pipe.rows("select bookmark is not null from raw._tidemark_state") == [(True,)]


def test_a_part_of_a_table_that_was_rewritten_is_refused(pipe, halves):
    load(pipe, halves, 1).ok()
    pipe.do("vacuum full events")
    assert "since its first load was divided into parts" in load(pipe, halves, 2).refused("table_changed")


def test_a_part_is_refused_once_the_table_has_lost_the_others(pipe, halves):
    load(pipe, halves, 1).ok()
    with pipe.warehouse() as warehouse:
        warehouse.execute("truncate raw.events")
    assert "`tidemark state rewind public-events --to beginning`" in load(pipe, halves, 2).refused("state_ahead")
