"""The target's DDL waits for readers, and readers never wait for the target."""

from __future__ import annotations

import json
import time
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

import pytest

from tests import autovacuum, clocks, programs
from tests.programs import TARGET
from tests.singer.conftest import FULL_TABLE, INCREMENTAL

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.singer.conftest import Pipe

STREAMS = {"public-orders": INCREMENTAL}
ORDERS = """
    create table orders (id int primary key, note varchar(10), updated_at timestamptz default now());
    insert into orders select n, 'note ' || n, now() - interval '1 day' from generate_series(1, 3) n;
"""


@pytest.fixture
def loaded(pipe: Pipe) -> Pipe:
    pipe.do(ORDERS)
    pipe.state = pipe.sync(STREAMS).ok().state
    return pipe


@contextmanager
def analyst(pipe: Pipe, relation: str) -> Iterator[Any]:
    """A session whose open transaction has read a relation."""
    with pipe.warehouse(application_name="an analyst") as connection:
        connection.execute(f"begin; select from {relation}")
        try:
            yield connection
        finally:
            # closing the session ends its transaction
            connection.close()


def held_up(pipe: Pipe, processes: list[Any]) -> None:
    """Wait until the target was blocked by the lock at least twice."""
    deadline = time.monotonic() + 30
    while (pipe.directory / "target.log").read_text().count("waits for other sessions") < 1:
        assert time.monotonic() < deadline, (pipe.directory / "target.log").read_text()
        assert processes[-1].poll() is None, (pipe.directory / "target.log").read_text()
        time.sleep(0.1)
    time.sleep(1)


@pytest.mark.parametrize(
    ("change", "read"),
    [
        pytest.param("add more text default 'x'", "raw.orders", marks=pytest.mark.long),
        pytest.param("rename note to remark", "raw.orders", marks=pytest.mark.long),
        ("alter note type text", "notes"),
        pytest.param("alter note type text", "raw.orders", marks=pytest.mark.long),
    ],
    ids=["added", "renamed", "widened under a view that is read", "widened"],
)
def test_a_table_is_altered_after_a_long_reader_while_other_readers_continue(loaded, change, read):
    with loaded.warehouse() as connection:
        connection.execute("create view notes as select id, note from raw.orders")
    loaded.do(f"alter table orders {change}; update orders set updated_at = now()")
    with (
        clocks.reader(loaded.warehouse, "select from raw.orders"),
        clocks.reader(loaded.warehouse, "select from notes"),
    ):
        with analyst(loaded, read):
            processes = loaded.start(STREAMS, loaded.state)
            held_up(loaded, processes)
        loaded.finish(processes).ok()
    assert loaded.rows("select count(*) from raw._tidemark_schema_changes") == [(1,)]


def test_a_session_that_blocks_longer_than_lock_timeout_is_named_and_nothing_is_half_done(loaded):
    loaded.target["lock_timeout"] = 1
    loaded.do("alter table orders add more text default 'x'; update orders set updated_at = now()")
    with analyst(loaded, "raw.orders") as connection:
        synced = loaded.sync(STREAMS, loaded.state)
        pid = connection.info.backend_pid
        error = synced.refused("lock_busy")
        assert "raw.orders could not be altered within 1 s" in error
        assert f"pid {pid} (" in error
        assert "an analyst" in error
        assert loaded.rows("select count(*) from raw._tidemark_schema_changes") == [(0,)]
        # follow the error's advice
        loaded.rows(f"select pg_terminate_backend({pid}, 5000)")
        loaded.sync(STREAMS, loaded.state).ok()


@pytest.mark.usefixtures("prepares")
def test_a_prepared_transaction_that_blocks_is_named_and_can_be_ended_as_the_error_says(loaded):
    loaded.target["lock_timeout"] = 1
    loaded.do("alter table orders add more text default 'x'; update orders set updated_at = now()")
    with loaded.warehouse() as connection:
        connection.execute("begin; select from raw.orders; prepare transaction 'report 7'")
        try:
            with ExitStack() as readers:
                for _ in range(3):
                    readers.enter_context(analyst(loaded, "raw.orders"))
                error = loaded.sync(STREAMS, loaded.state).refused("lock_busy")
        finally:
            connection.execute("rollback prepared 'report 7'")
    assert "kept it locked: the prepared transaction report 7, pid " in error
    assert "ROLLBACK PREPARED" in error
    loaded.sync(STREAMS, loaded.state).ok()


def test_autovacuum_of_a_large_table_gives_way_to_a_change_of_it(loaded):
    loaded.target["lock_timeout"] = 5
    loaded.do("alter table orders add more text default 'x'; update orders set updated_at = now()")
    with loaded.warehouse() as connection:
        connection.execute("insert into raw.orders (id) select n from generate_series(10, 50000) n")
        connection.execute("update raw.orders set note = 'dead' where id > 9")
    with autovacuum.at_work(loaded.warehouse, "raw.orders"):
        loaded.sync(STREAMS, loaded.state).ok()
    assert loaded.rows("select more from raw.orders where id < 9") == [("x",)] * 3


def test_an_empty_table_with_a_long_reader_is_loaded(pipe):
    pipe.do(ORDERS)
    pipe.target["lock_timeout"] = 2
    pipe.sync(STREAMS).ok()
    with pipe.warehouse() as connection:
        connection.execute(
            "truncate raw.orders; delete from raw._tidemark_state; drop index raw.orders__tidemark_loaded_xid_idx"
        )
        with analyst(pipe, "raw.orders"), clocks.reader(pipe.warehouse, "select from raw.orders"):
            pipe.sync(STREAMS).ok()
    assert pipe.rows("select count(_tidemark_loaded_xid), count(_sdc_extracted_at) from raw.orders") == [(3, 3)]
    assert pipe.rows("select rows_inserted from raw._tidemark_runs order by started_at") == [(3,), (3,)]
    assert pipe.rows("select count(*) from pg_attrdef where adrelid = 'raw.orders'::regclass") == [(0,)]


def test_a_killed_runs_stage_that_a_dump_reads_blocks_nobody(pipe):
    pipe.do(ORDERS)
    streams = {"public-orders": FULL_TABLE}
    pipe.sync(streams).ok()
    with pipe.warehouse() as connection:
        digest = "select '_tidemark_stage_' || substr(encode(sha256('public-orders'), 'hex'), 1, 16)"
        ((stage,),) = connection.execute(digest).fetchall()
        connection.execute(f"create unlogged table raw.{stage}_left (id int)")
    pipe.do("insert into orders values (4)")
    with analyst(pipe, f"raw.{stage}_left"):
        pipe.sync(streams).ok()
    assert pipe.rows("select count(*) from raw.orders") == [(4,)]
    pipe.sync(streams).ok()
    assert pipe.rows("select count(*) from pg_class where relname like '\\_tidemark\\_stage%'") == [(0,)]


@pytest.mark.long
def test_records_wait_for_readers_too(loaded):
    lines = [
        {"type": "SCHEMA", "stream": "orders", "key_properties": ["id"]},
        {"type": "RECORD", "stream": "orders", "record": {"id": 9, "more": "x"}},
    ]
    lines[0]["schema"] = {"properties": {"id": {"type": "integer"}, "more": {"type": ["string", "null"]}}}
    _, config = loaded.configs()
    messages = loaded.directory / "records.singer"
    messages.write_text("".join(json.dumps(line) + "\n" for line in lines))
    log = loaded.directory / "target.log"
    with clocks.reader(loaded.warehouse, "select from raw.orders"):
        with analyst(loaded, "raw.orders"), messages.open("rb") as given, log.open("wb") as told:
            target = programs.start([TARGET, "--config", config], stdin=given, stdout=None, stderr=told)
            held_up(loaded, [target])
        target.stdout.read()
        assert target.wait(timeout=60) == 0, log.read_text()
        target.stdout.close()
    assert loaded.rows("select more from raw.orders where id = 9") == [("x",)]
