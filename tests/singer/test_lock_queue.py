"""The tap's locks do not block the application: DDL waits only for the range that is being read."""

from __future__ import annotations

import signal
import threading
import time
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

import psycopg
import pytest

from tests.singer.conftest import FULL_TABLE, INCREMENTAL
from tests.singer.test_crashes import wait_for

# it used to be lock_timeout, 30 s by default
MOST_S = 5.0
ROWS = 5_000
BIG = f"""
    create table big (id int primary key, note text, updated_at timestamptz not null default now());
    insert into big select n, repeat(md5(n::text), 20), now() from generate_series(1, {ROWS}) n;
    analyze big;
"""
PARTS = f"""
    create table big (id int, note text, updated_at timestamptz not null default now(), primary key (id))
        partition by range (id);
    create table big_1 partition of big for values from (0) to (2000);
    create table big_2 partition of big for values from (2000) to (4000);
    create table big_3 partition of big default;
    insert into big select n, repeat(md5(n::text), 20), now() from generate_series(1, {ROWS}) n;
    analyze big;
"""
CHILDREN = f"{BIG}; create table child () inherits (big); insert into child select id + 100000 from only big limit 9"
VIEW = f"{BIG}; create view seen as select * from big"
KEYED = {"table-key-properties": ["id"]}
METHODS = {"incremental": INCREMENTAL, "full-table": FULL_TABLE}
LONG = pytest.mark.long
# a name, the tables, what is done to them, the reason if the run is refused, and the method that `make test` tries
ALTERED = [
    ("truncate", BIG, "truncate big", None, "full-table"),
    ("vacuum-full", BIG, "vacuum full big", None, None),
    ("cluster", BIG, "cluster big using big_pkey", None, None),
    ("reindex", BIG, "reindex table big", None, None),
    ("type", BIG, "alter table big alter id type bigint", "column id was altered", "incremental"),
    ("drop-column", BIG, "alter table big drop column note", "column note was dropped or renamed", "full-table"),
    ("rename", BIG, "alter table big rename to large", "has no public.big", None),
    ("drop-create", BIG, f"drop table big; {BIG}", "dropped and created again", None),
    ("detach", PARTS, "alter table big detach partition big_2", None, "incremental"),
    ("drop-partition", PARTS, "drop table big_3", None, None),
    ("truncate-partition", PARTS, "truncate big_3", None, None),
    ("truncate-below-view", VIEW, "truncate big", None, None),
    ("view", VIEW, "create or replace view seen as select * from big where id <= 2500", None, None),
]
ADD_COLUMN = "alter table big add column extra int"


def slowly(each_s: float = 0.1) -> str:
    """Return a condition that is true for all rows and slow for 20 of them."""
    return f"(id % 250 <> 0 or pg_sleep({each_s}) is not null)"


@dataclass
class Clock:
    """How long the application waited."""

    ddl_s: list[float] = field(default_factory=list)
    longest_read_s: float = 0.0


def is_read(pipe) -> bool:
    """Return whether rows are being read."""
    with pipe.source() as connection:
        query = """
            select 1 from pg_stat_activity where datname = current_database() and pid <> pg_backend_pid()
                and application_name = 'tidemark tap-postgres' and query ~ '^(COPY|FETCH|DECLARE)'
        """
        return bool(connection.execute(query).fetchone())


@contextmanager
def application(pipe, *ddl: str):
    """Alter the table once it is being read, and read it all the time; check the waits at the end."""
    clock, over = Clock(), threading.Event()

    def alter() -> None:
        with pipe.source() as connection:
            while not is_read(pipe) and not over.wait(0.01):
                pass
            for statement in ddl:
                began = time.monotonic()
                connection.execute(statement)
                clock.ddl_s.append(time.monotonic() - began)
                over.wait(0.3)

    def read() -> None:
        with pipe.source() as connection:
            while not over.wait(0.05):
                began = time.monotonic()
                # the DDL may have dropped or renamed it
                with suppress(psycopg.errors.UndefinedTable):
                    connection.execute("select count(*) from big where id = 1")
                clock.longest_read_s = max(clock.longest_read_s, time.monotonic() - began)

    threads = [threading.Thread(target=alter), threading.Thread(target=read)]
    for thread in threads:
        thread.start()
    try:
        yield clock
    finally:
        over.set()
        for thread in threads:
            thread.join()
    assert len(clock.ddl_s) == len(ddl), "the table was not altered while it was read"
    assert max(clock.ddl_s) < MOST_S
    assert clock.longest_read_s < MOST_S


@pytest.mark.parametrize(
    ("tables", "name", "method", "copy"),
    [
        pytest.param(BIG, "big", INCREMENTAL, True, id="table"),
        pytest.param(PARTS, "big", FULL_TABLE, True, id="partitions"),
        pytest.param(VIEW, "seen", INCREMENTAL, True, id="view", marks=LONG),
        pytest.param(BIG, "big", FULL_TABLE, False, id="table-records", marks=LONG),
        pytest.param(PARTS, "big", INCREMENTAL, False, id="partitions-records", marks=LONG),
        pytest.param(CHILDREN, "big", FULL_TABLE, True, id="inheritance", marks=LONG),
        pytest.param(CHILDREN, "big", INCREMENTAL, False, id="inheritance-records", marks=LONG),
        pytest.param(VIEW, "seen", FULL_TABLE, False, id="view-records", marks=LONG),
    ],
)
def test_a_column_is_added_while_rows_are_read_and_nobody_waits(pipe, tables, name, method, copy):
    pipe.do(tables)
    pipe.tap |= {"use_copy": copy, "chunk_size_mb": 0.25, "where": {f"public-{name}": slowly()}}
    catalog = pipe.catalog({f"public-{name}": method | ({} if tables in {BIG, PARTS} else KEYED)})
    for stream in catalog["streams"]:
        if stream["tap_stream_id"] == f"public-{name}":
            # records get it from there
            stream["key_properties"] = ["id"]
    with application(pipe, ADD_COLUMN):
        pipe.finish(pipe.start(catalog)).ok()
    rows = ROWS + 9 * (tables == CHILDREN)
    assert pipe.rows(f"select count(*), count(distinct id) from raw.{name}") == [(rows, rows)]


@LONG
def test_changed_rows_that_one_statement_reads_are_all_there_if_it_is_interrupted(pipe):
    pipe.do(f"{BIG}; alter table big set (autovacuum_enabled = off); create index on big (updated_at)")
    pipe.do("update big set updated_at = timestamptz '2026-01-01' + id * interval '1 second'; analyze big")
    pipe.do("create function public.is_read(id int) returns bool language plpgsql as 'begin return true; end'")
    pipe.tap |= {"chunk_size_mb": 0.5, "where": {"public-big": "public.is_read(id)"}}
    state = pipe.sync({"public-big": INCREMENTAL}).ok().state
    pipe.do("update big set note = reverse(note), updated_at = now()")
    pipe.do(
        "create or replace function public.is_read(id int) returns bool language plpgsql as "
        "'begin perform pg_sleep(0.1) where id % 250 = 0; return true; end'"
    )
    with application(pipe, ADD_COLUMN):
        log = pipe.sync({"public-big": INCREMENTAL}, state).ok().tap_log
    assert "A range is read again: reason=Reading public-big released public.big" in log
    with pipe.source() as connection:
        notes = connection.execute("select id, note from big order by id").fetchall()
    assert pipe.rows("select id, note from raw.big order by id") == notes


@pytest.mark.parametrize(
    ("method", "copy"),
    [
        pytest.param(INCREMENTAL, True, id="incremental"),
        pytest.param(FULL_TABLE, True, id="full-table", marks=LONG),
        pytest.param(FULL_TABLE, False, id="full-table-records", marks=LONG),
    ],
)
def test_a_stalled_target_blocks_no_ddl_in_the_source(pipe, method, copy):
    pipe.do(BIG if not copy else VIEW)
    name = "seen" if copy else "big"
    pipe.tap |= {"use_copy": copy, "chunk_size_mb": 0.12}
    catalog = pipe.catalog({f"public-{name}": method | KEYED if copy else method})
    # the target must load only the first chunks
    pipe.tap["where"] = {f"public-{name}": slowly(0.02)}
    with application(pipe, ADD_COLUMN) as clock:
        processes = pipe.start(catalog)
        processes[-1].send_signal(signal.SIGSTOP)
        wait_for(lambda: clock.ddl_s)
        processes[-1].send_signal(signal.SIGCONT)
        pipe.finish(processes).ok()
    assert pipe.rows(f"select count(*), count(distinct id) from raw.{name}") == [(ROWS, ROWS)]


@pytest.mark.parametrize("copy", [True, pytest.param(False, marks=LONG)], ids=["chunks", "records"])
def test_a_ceiling_is_kept_and_ddl_does_not_wait_for_its_pauses(pipe, copy):
    mb_per_s = 4
    pipe.do(BIG)
    pipe.tap |= {"use_copy": copy, "max_source_mb_per_s": mb_per_s, "statement_timeout": 9, "chunk_size_mb": 1}
    catalog = pipe.catalog({"public-big": INCREMENTAL})
    began = time.monotonic()
    with application(pipe, ADD_COLUMN):
        pipe.finish(pipe.start(catalog)).ok()
    assert pipe.rows("select count(*), count(distinct id) from raw.big") == [(ROWS, ROWS)]
    assert time.monotonic() - began > ROWS * 640 / (mb_per_s * 2**20)
    if not copy:
        # what they cost is not known
        return
    ((received, seconds, paused),) = pipe.rows(
        "select source_bytes, extract(epoch from ended_at - started_at)::float8, seconds_paused from raw._tidemark_runs"
    )
    # the first chunks were on their way when the target began
    assert received < mb_per_s * 2**20 * (seconds + 1)
    assert paused > 1


@LONG
def test_a_table_that_is_altered_all_the_time_is_given_up_and_the_session_is_named(pipe):
    pipe.do(VIEW)
    pipe.tap["where"] = {"public-seen": slowly(0.2)}
    catalog = pipe.catalog({"public-seen": FULL_TABLE, "public-big": FULL_TABLE})
    with application(pipe, *(f"alter table big add column extra_{n} int" for n in range(20))):
        synced = pipe.finish(pipe.start(catalog))
    error = synced.refused("lock_busy")
    assert "Reading public-seen released public.seen for a waiting session, pid " in error
    assert " int, 9 times in a row." in error
    assert pipe.rows("select count(*) from raw.big") == [(ROWS,)]


@LONG
@pytest.mark.usefixtures("prepares")
def test_a_prepared_transaction_that_keeps_readers_out_is_named(pipe):
    pipe.do(BIG)
    pipe.tap["lock_timeout"] = 1
    catalog = pipe.catalog({"public-big": FULL_TABLE})
    pipe.do("begin; lock table big in access exclusive mode; prepare transaction 'migration 7'")
    try:
        error = pipe.finish(pipe.start(catalog)).refused("lock_busy")
    finally:
        pipe.do("rollback prepared 'migration 7'")
    assert "by the prepared transaction migration 7; run this again" in error


def test_other_streams_are_read_while_one_waits_for_a_locked_table(pipe):
    pipe.do(f"{BIG}; create table other as table big")
    pipe.tap["lock_timeout"] = 0
    catalog = pipe.catalog({"public-big": FULL_TABLE, "public-other": FULL_TABLE})
    with pipe.source() as connection, connection.transaction():
        connection.execute("lock table big in access exclusive mode")
        processes = pipe.start(catalog)
        wait_for(lambda: pipe.rows("select to_regclass('raw.other') is not null") == [(True,)])
        wait_for(lambda: pipe.rows("select count(*) from raw.other") == [(ROWS,)])
    pipe.finish(processes).ok()
    assert pipe.rows("select count(*) from raw.big") == [(ROWS,)]


def test_other_streams_are_read_while_one_takes_seconds_to_open(pipe):
    pipe.do("create table a (id int primary key); create table b as select n id from generate_series(1, 100) n")
    catalog = pipe.catalog({"public-a": INCREMENTAL | {"replication-key": "id"}, "public-b": FULL_TABLE})
    with pipe.source() as connection, connection.transaction():
        # the first load of a key that is not a time waits two seconds for open transactions
        connection.execute("insert into a values (1)")
        synced = pipe.sync(catalog, listen=True).ok()
    order = [(message["type"], message["stream"]) for message in synced.messages if "stream" in message]
    assert order.index(("BATCH", "public-b")) < order.index(("SCHEMA", "public-a"))
    assert pipe.rows("select count(*) from raw.b") == [(100,)]


@pytest.mark.parametrize(
    ("tables", "ddl", "refusal", "method"),
    [
        *(
            pytest.param(
                tables, ddl, refusal, METHODS[method], id=f"{name}-{method}", marks=[] if method == short else LONG
            )
            for name, tables, ddl, refusal, short in ALTERED
            for method in METHODS
        )
    ],
)
def test_a_table_changed_while_it_is_read_is_right_after_this_run_or_the_next(pipe, tables, ddl, refusal, method):
    pipe.do(tables)
    name = "seen" if tables == VIEW else "big"
    pipe.tap |= {"chunk_size_mb": 0.25, "where": {f"public-{name}": slowly()}}
    metadata = method | KEYED if name == "seen" else method
    with application(pipe, ddl):
        synced = pipe.finish(pipe.start({f"public-{name}": metadata}))
    if refusal is None:
        synced.ok()
    else:
        assert (synced.tap_status, synced.target_status) == (1, 0)
        assert refusal in synced.refused("table_missing" if "rename" in ddl else "table_changed")
        if "rename" in ddl:
            pipe.do("alter table large rename to big")
        pipe.tap.pop("where")
        pipe.sync({f"public-{name}": metadata}, synced.state).ok()
    key = "count(distinct id)"
    ((rows, ids),) = pipe.rows(f"select count(*), {key} from raw.{name} where _sdc_deleted_at is null")
    assert rows == ids
    with pipe.source() as connection:
        now = connection.execute(f"select count(*) from {name}").fetchone()[0]
    # a replication key does not show deletes; detached rows were in the table at the time of the snapshot
    assert rows == now or (rows >= now and (method is INCREMENTAL or "detach" in ddl or "drop table big_3" in ddl))
