"""Raw tables in partitions (`raw_partitions`): each row is loaded once, whatever its key, and nobody waits for it."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
from psycopg import sql

from singer_postgres.core.warehouse import partition_ranges, partitions
from tests.singer.conftest import FULL_TABLE, INCREMENTAL
from tests.singer.test_crashes import wait_for
from tests.singer.test_log_based import follow, log_pipe, publish  # noqa: F401 - a fixture

HASH = {"by": "hash", "count": 4}
RANGE = {"by": "range", "width": 100}
MONTHS = {"by": "range", "column": "day", "width": "month"}
EVENTS = """
    create table events (
        id bigint not null, day timestamptz not null, note text, updated_at timestamptz not null default now(),
        primary key (id, day)
    );
    insert into events select n, timestamptz '2025-12-30 23:30Z' + n * interval '10 hours', 'note ' || n
    from generate_series(-120, 250) n;
"""
MORE = """
    update events set note = 'changed', updated_at = now() where id % 50 = 0;
    insert into events select n, timestamptz '2027-01-01Z' + n * interval '1 hour', 'later'
    from generate_series(990, 1010) n;
"""
PARTS = """
    select relname, pg_get_expr(relpartbound, oid) from pg_class where relispartition and relkind = 'r'
        and relnamespace = 'raw'::regnamespace order by relname
"""
SAME = "select id, day, note from {}events {} order by id"
ALIVE = "where _sdc_deleted_at is null"


def is_same(pipe) -> bool:
    """Return whether both databases have the same rows."""
    with pipe.source() as connection:
        return connection.execute(SAME.format("", "")).fetchall() == pipe.rows(SAME.format("raw.", ALIVE))


@pytest.mark.parametrize(
    ("partitions", "names"),
    [
        pytest.param(HASH, ["events_p0", "events_p1", "events_p2", "events_p3"], id="hash"),
        pytest.param(
            RANGE,
            ["events_p0", "events_p100", "events_p1000", "events_p200", "events_p900", "events_pm100", "events_pm200"],
            id="numbers",
        ),
        pytest.param(
            MONTHS,
            [
                f"events_p{month}_01"
                for month in ("2025_11", "2025_12", *(f"2026_0{n}" for n in range(1, 5)), "2027_02")
            ],
            id="months",
        ),
    ],
)
@pytest.mark.parametrize(
    "method",
    [pytest.param(INCREMENTAL, id="incremental"), pytest.param(FULL_TABLE, id="full-table", marks=pytest.mark.long)],
)
def test_rows_of_any_key_are_loaded_once_and_counted(pipe, partitions, names, method):
    pipe.do(EVENTS)
    pipe.target["raw_partitions"] = {"public-events": partitions}
    streams = {"public-events": method}
    first = pipe.sync(streams).ok()
    # a reader of all partitions
    with pipe.warehouse() as reader, reader.transaction():
        reader.execute("select count(*) from raw.events").fetchone()
        pipe.do(MORE)
        pipe.target["lock_timeout"] = 1
        pipe.sync(streams, first.state).ok()
    assert is_same(pipe)
    counts = "select rows_inserted, rows_updated from raw._tidemark_runs order by started_at"
    assert pipe.rows(counts) == [(371, 0), (21, 8)]
    assert [name for name, _ in pipe.rows(PARTS)] == names


def test_changes_of_the_log_find_their_partitions(log_pipe):  # noqa: F811
    pipe = log_pipe
    pipe.do(EVENTS)
    publish(pipe, "events")
    pipe.tap["change_history"] = ["public-events"]
    pipe.target["raw_partitions"] = {"public-events": RANGE}
    follow(pipe, "events")
    pipe.do(MORE + "; delete from events where id = 7; update events set id = 5000 where id = 8; analyze events")
    follow(pipe, "events")
    assert is_same(pipe)
    assert pipe.rows("select rows_inserted, rows_updated, rows_deleted from raw._tidemark_runs order by started_at")[
        -1
    ] == (22, 8, 2)
    assert "events_p5000" in {name for name, _ in pipe.rows(PARTS)}
    # only partitions that can have the keys are read
    scans = "select relname, seq_scan + idx_scan from pg_stat_all_tables where relname like 'events\\_pm%' order by 1"
    # the comparison's own scans would be counted up to a second later
    pipe.rows("select pg_stat_force_next_flush()")
    before = pipe.rows(scans)
    pipe.do("update events set note = 'again' where id between 100 and 110")
    follow(pipe, "events")
    assert pipe.rows(scans) == before
    assert is_same(pipe)
    pipe.do("truncate events; insert into events values (90000, now(), 'after')")
    follow(pipe, "events")
    assert is_same(pipe)
    assert len(pipe.rows("select from raw.events_changes where _tidemark_operation = 'truncate'")) == 1


def test_a_partitioned_table_follows_the_source_and_a_plain_one_stays_as_it_is(pipe):
    pipe.do(EVENTS + "create table plain (id int primary key, updated_at timestamptz default now())")
    streams = {"public-events": INCREMENTAL, "public-plain": INCREMENTAL}
    pipe.target["raw_partitions"] = {"public-events": RANGE}
    state = pipe.sync(streams).ok().state
    pipe.target["raw_partitions"] = {"public-plain": RANGE, "public-events": MONTHS}
    pipe.do("alter table events add extra int default 5; alter table events rename id to number")
    pipe.do("alter table events alter note type varchar(90); insert into events values (7777, now(), 'x', now(), 6)")
    catalog = pipe.catalog(streams)
    # the setting is for new tables: new ranges are as wide as those that are there
    state = pipe.sync(catalog, state).ok().state
    assert pipe.rows("select count(*), count(distinct number), sum(extra) from raw.events") == [(372, 372, 371 * 5 + 6)]
    assert ("events_p7700", "FOR VALUES FROM ('7700') TO ('7800')") in pipe.rows(PARTS)
    assert pipe.rows("select relkind::text from pg_class where oid = 'raw.plain'::regclass") == [("r",)]
    pipe.do("alter table events alter number type numeric(30)")
    error = pipe.sync(pipe.catalog(streams), state).refused("column_retyped")
    assert "raw.events.number is bigint, and the source's column is numeric(30,0) now: it can't be widened" in error


def test_records_find_their_partitions_too(pipe):
    pipe.do(EVENTS)
    pipe.tap["use_copy"] = False
    pipe.target["raw_partitions"] = {"public-events": RANGE}
    state = pipe.sync({"public-events": INCREMENTAL}).ok().state
    pipe.do(MORE)
    pipe.sync({"public-events": INCREMENTAL}, state).ok()
    assert is_same(pipe)
    assert len(pipe.rows(PARTS)) == 7


@pytest.mark.parametrize(
    ("type_", "rows", "part"),
    [
        pytest.param("bigint", ("generate_series(150, 160)", "170"), "events_p0", id="range"),
        pytest.param("date", ("unnest('{today, infinity}'::date[])", "'-infinity'"), "events_pdefault", id="default"),
    ],
)
def test_two_runs_that_need_the_same_partition_at_once_share_it(pipe, monkeypatch, type_, rows, part):
    with pipe.warehouse() as one, pipe.warehouse() as other, ThreadPoolExecutor() as pool:
        one.execute(f"create schema raw; create table raw.events (id {type_} primary key) partition by range (id)")
        one.execute(f"create table public.stage as select id::{type_} from {rows[0]} as id")

        def make_room(connection) -> sql.Composable | None:
            events = partitions.find(connection, "raw", "events")
            stage = sql.Identifier("public", "stage")
            return partitions.make_room(connection, "raw", "events", stage, partitions=events)

        def load(connection, rows: str) -> None:
            make_room(connection)
            connection.execute(f"insert into raw.events {rows}")

        def load_too() -> None:
            with other.transaction():
                load(other, f"values ({rows[1]})")

        with one.transaction():
            load(one, "select id from public.stage")
            later = pool.submit(load_too)
            waits = "select count(*) from pg_locks where not granted and relation = 'raw.events'::regclass"
            wait_for(lambda: pipe.rows(waits) == [(1,)])
        later.result()
        assert [name for name, _ in pipe.rows(PARTS)] == [part]
        assert pipe.rows("select count(*) = (select count(*) + 1 from public.stage) from raw.events") == [(True,)]
        # a table with more ranges than we would make needs no other for rows that have one
        monkeypatch.setattr(partition_ranges, "MOST", 0)
        assert (make_room(one) is None) == (part == "events_pdefault")
        assert [name for name, _ in pipe.rows(PARTS)] == [part]


@pytest.mark.long
def test_a_table_that_would_get_thousands_of_ranges_gets_a_default_partition(pipe):
    pipe.do(EVENTS)
    pipe.target["raw_partitions"] = {"public-events": {"by": "range", "width": 1}}
    state = pipe.sync({"public-events": INCREMENTAL}).ok().state
    assert len(pipe.rows(PARTS)) == 371
    pipe.do("insert into events select n, now(), 'far' from generate_series(1000, 1999) n")
    done = pipe.sync({"public-events": INCREMENTAL}, state).ok()
    assert "raw.events gets a default partition and no more ranges: it would have more than 1000 ranges of 1" in (
        done.target_log
    )
    assert pipe.rows("select count(*) from raw.events") == [(1371,)]
    assert ("events_pdefault", "DEFAULT") in pipe.rows(PARTS)


@pytest.mark.parametrize(
    ("partitions", "why"),
    [
        pytest.param({"by": "range", "column": "note", "width": 5}, "`column` is note, and must be", id="no key"),
        pytest.param({"by": "range", "width": "month"}, "`width` is month, and for id, which is bigint", id="unit"),
        pytest.param({"by": "range", "width": "Month"}, 'width is "Month", and must be day or week', id="misspelt"),
        pytest.param({"by": "list"}, 'is "list", and must be hash or range', id="unknown"),
    ],
)
def test_a_setting_that_does_not_fit_is_refused_before_the_table_is_made(pipe, partitions, why):
    pipe.do(EVENTS)
    pipe.target["raw_partitions"] = {"public-events": partitions}
    assert why in pipe.sync({"public-events": INCREMENTAL}).refused("setting_invalid")
