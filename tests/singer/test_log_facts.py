"""What PostgreSQL does not promise of its log and its slots: where its users lose rows, these streams do not."""

from __future__ import annotations

import signal
import threading
import time
import uuid
from contextlib import closing, contextmanager, suppress
from typing import TYPE_CHECKING

import psycopg
import pytest

from singer_postgres.core.errors import LockBusyError
from singer_postgres.core.lsn import lsn_of
from singer_postgres.core.source import older_writers, pgoutput
from singer_postgres.tap.log.replication import Replication
from tests.servers import INSTALLATIONS, major
from tests.singer.test_crashes import wait_for
from tests.singer.test_log_based import LOG_BASED, SLOT, follow, log_pipe, log_source, publish, same  # noqa: F401 - a fixture
from tests.singer.test_log_crashes import kill_server, server_of
from tests.singer.test_log_faults import SIMPLE

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.singer.conftest import Pipe


@contextmanager
def configured(pipe: Pipe, **settings: str) -> Iterator[None]:
    """Set settings of the source's server that need no restart."""
    with pipe.source() as connection:
        for name, value in settings.items():
            connection.execute(f"alter system set {name} = '{value}'".encode())
        connection.execute("select pg_reload_conf()")
        try:
            yield
        finally:
            for name in settings:
                connection.execute(f"alter system reset {name}".encode())
            connection.execute("select pg_reload_conf()")


def confirmed(pipe: Pipe) -> int:
    with pipe.source() as connection:
        row = connection.execute(
            "select confirmed_flush_lsn::text from pg_replication_slots where slot_name = %s", [SLOT]
        ).fetchone()
    assert row
    return lsn_of(row[0])


def read_until(replication: Replication, tag: int) -> bytes:
    """Return the next message with a tag."""
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        message = replication.read(1)
        if isinstance(message, bytes) and message[0] == tag:
            return message
    raise TimeoutError(chr(tag))


@contextmanager
def stream(pipe: Pipe) -> Iterator[Replication]:
    """Stream the slot, with a server that ends silent sessions after a second."""
    with closing(Replication(pipe.source_url)) as replication:
        replication.set({"wal_sender_timeout": "1s"})
        replication.start(SLOT, SLOT, binary=True)
        yield replication
    wait_for(lambda: not slot_is_active(pipe))


def slot_is_active(pipe: Pipe) -> bool:
    with pipe.source() as connection:
        query = "select active from pg_replication_slots where slot_name = %s"
        row = connection.execute(query, [SLOT]).fetchone()
    assert row
    return row[0]


def test_a_transaction_that_was_read_and_not_confirmed_comes_again(log_pipe):  # noqa: F811
    pipe = log_pipe
    pipe.do(SIMPLE)
    publish(pipe, "things")
    with psycopg.connect(pipe.source_url) as writer:
        # its rows lie in the log before the commits of the others
        writer.execute("insert into things select i, repeat('x', 1000) from generate_series(1000, 9000) i")
        pipe.do("insert into things values (100, 'first')")
        pipe.do("insert into things values (101, 'second')")
    with stream(pipe) as replication:
        first = pgoutput.parse_commit(read_until(replication, pgoutput.COMMIT)).end_lsn
        replication.confirm(first)
        read_until(replication, pgoutput.COMMIT)
        read_until(replication, pgoutput.INSERT)
        # in the middle of the third, for longer than the server waits for an answer
        deadline = time.monotonic() + 2
        while time.monotonic() < deadline:
            replication.read(0.1)
    assert confirmed(pipe) == first
    with stream(pipe) as replication:
        assert b"second" in read_until(replication, pgoutput.INSERT)


@pytest.mark.long
def test_a_session_that_waits_for_its_target_outlives_the_servers_timeout(log_pipe):  # noqa: F811
    pipe = log_pipe
    pipe.do(SIMPLE)
    publish(pipe, "things")
    with stream(pipe) as replication:
        before = confirmed(pipe)
        deadline = time.monotonic() + 2.5
        while time.monotonic() < deadline:
            # as for a target that stands still: nothing is read
            replication.confirm(0)
            time.sleep(0.25)
        pipe.do("insert into things values (100, 'later')")
        assert b"later" in read_until(replication, pgoutput.INSERT)
    assert confirmed(pipe) == before


def test_a_first_load_ends_although_nobody_has_a_quiet_source_write_its_log(log_pipe, installed):  # noqa: F811
    pipe = log_pipe
    pipe.do(SIMPLE)
    publish(pipe, "things")
    # they write to the log now and then
    writers = [
        each
        for each in server_of(installed("embedded"), "source").children()
        if any(name in each.cmdline()[0] for name in ("background writer", "autovacuum launcher"))
    ]
    for each in writers:
        each.suspend()
    try:
        with pipe.source() as connection, connection.transaction(force_rollback=True):
            # as a page that was pruned by a reader
            connection.execute("select pg_logical_emit_message(false, 'nobody', 'waits for it')")
        follow(pipe, "things")
    finally:
        for each in writers:
            each.resume()
    assert len(writers) == 2
    assert same(pipe, "things")


def test_a_follower_does_not_stop_the_source_from_shutting_down(log_pipe, installed):  # noqa: F811
    pipe, checkout = log_pipe, installed("embedded")
    pipe.do(SIMPLE)
    publish(pipe, "things")
    follow(pipe, "things")
    pipe.tap["replication_max_run_seconds"] = 60
    processes = pipe.start({"public-things": LOG_BASED}, pipe.state)
    pipe.do("insert into things values (100, 'followed')")
    wait_for(lambda: pipe.rows("select id from raw.things where id = 100"))
    pipe.do("insert into things values (101, 'too')")
    began = time.monotonic()
    server = server_of(checkout, "source")
    # a fast shutdown, which waits until the session has confirmed all
    server.send_signal(signal.SIGINT)
    try:
        server.wait(30)
        took = time.monotonic() - began
    finally:
        checkout.tidemark("up")
    ended = pipe.finish(processes)
    assert "replication_failed" in ended.codes
    assert "Traceback" not in ended.tap_log + ended.target_log
    assert took < 15
    pipe.tap["replication_max_run_seconds"] = 0
    pipe.state = ended.state or pipe.state
    follow(pipe, "things")
    assert same(pipe, "things")


def test_a_slot_that_somebody_moved_on_is_refused(log_pipe):  # noqa: F811
    pipe = log_pipe
    pipe.do(SIMPLE)
    publish(pipe, "things")
    follow(pipe, "things")
    pipe.do("update things set name = 'skipped'")
    pipe.do(f"select pg_replication_slot_advance('{SLOT}', pg_current_wal_lsn())")
    line = pipe.sync({"public-things": LOG_BASED}, pipe.state).refused("slot_ahead")
    assert "those between would be missed" in line
    assert pipe.rows("select count(*) from raw.things where name = 'skipped'") == [(0,)]


def test_changes_that_were_staged_when_the_warehouse_crashed_are_read_again(log_pipe, installed):  # noqa: F811
    pipe = log_pipe
    pipe.do(SIMPLE)
    publish(pipe, "things")
    follow(pipe, "things")
    pipe.do(
        "update things set name = 'staged'; insert into things values (100, 'too'); delete from things where id = 3"
    )
    # the session is broken at its end
    with suppress(psycopg.OperationalError), pipe.warehouse() as connection:
        connection.execute("begin; lock table raw.things in exclusive mode")
        processes = pipe.start({"public-things": LOG_BASED}, pipe.state)
        waits = "select count(*) from pg_stat_activity where wait_event_type = 'Lock' and datname = current_database()"
        wait_for(lambda: pipe.rows(waits) == [(1,)])
        kill_server(installed("embedded"), "warehouse")
    crashed = pipe.finish(processes)
    assert "Traceback" not in crashed.tap_log + crashed.target_log
    pipe.state = crashed.state or pipe.state
    follow(pipe, "things")
    assert same(pipe, "things")


@pytest.mark.long
def test_a_row_written_while_its_table_was_published_is_not_missed(log_pipe):  # noqa: F811
    pipe = log_pipe
    pipe.do(f"{SIMPLE}; create table later (id bigint primary key, name text)")
    publish(pipe, "things")
    follow(pipe, "things")
    with psycopg.connect(pipe.source_url) as publisher, psycopg.connect(pipe.source_url) as writer:
        publisher.execute(f"alter publication {SLOT} add table later".encode())
        # this transaction is younger than the other, and the log does not have its row
        writer.execute("insert into later values (1, 'between')")
        publisher.commit()
        processes = pipe.start({"public-things": LOG_BASED, "public-later": LOG_BASED}, pipe.state)
        time.sleep(3)
    pipe.state = pipe.finish(processes).ok().state
    assert same(pipe, "later")


@pytest.mark.usefixtures("prepares")
def test_a_first_load_does_not_wait_for_ever_and_names_those_that_it_waits_for(log_pipe, monkeypatch):  # noqa: F811
    pipe, lines = log_pipe, []
    pipe.do(f"{SIMPLE}; create table other (id int)")
    monkeypatch.setattr(older_writers, "_WAIT_S", 1)
    name = f"forgotten-{uuid.uuid4().hex[:8]}"
    with pipe.source() as reader, pipe.source(application_name="night batch") as writer, pipe.source() as preparer:
        (oid,) = reader.execute("select 'things'::regclass::oid::bigint").fetchone() or ()
        writer.execute("begin; insert into things values (100, 'open')")
        preparer.execute(f"begin; insert into things values (101, 'p'); prepare transaction '{name}'".encode())
        # nobody waits for this one
        preparer.execute("begin; insert into other values (1)")
        pid, preparer_pid = writer.info.backend_pid, preparer.info.backend_pid
        with pytest.raises(LockBusyError) as caught:
            older_writers.wait(reader, oid, stream="public-things", warn=lines.append)
        writer.execute("rollback")
        reader.execute(f"rollback prepared '{name}'".encode())
        older_writers.wait(reader, oid, stream="public-things", warn=lines.append)
    for text in (str(caught.value), *lines):
        assert f"pid {pid}" in text
        assert "night batch" in text
        assert f"the prepared transaction {name}" in text
        assert str(preparer_pid) not in text


def test_a_row_whose_commit_waits_for_a_standby_is_not_missed_by_a_first_load(log_pipe):  # noqa: F811
    pipe = log_pipe
    pipe.do(f"{SIMPLE}; create table later (id bigint primary key, name text)")
    publish(pipe, "things", "later")
    follow(pipe, "things")

    def write() -> None:
        pipe.do("set synchronous_commit = on; insert into later values (1, 'in the log, and no snapshot sees it')")

    writer = threading.Thread(target=write)
    with configured(pipe, synchronous_standby_names="nobody"):
        # its checkpointer reads the setting
        time.sleep(1)
        writer.start()
        with pipe.source() as connection:
            waits = "select pid from pg_stat_activity where wait_event = 'SyncRep' and datname = current_database()"
            wait_for(lambda: connection.execute(waits).fetchone())
            # the slot moves past the commit, which no snapshot sees yet
            follow(pipe, "things")
            processes = pipe.start({"public-things": LOG_BASED, "public-later": LOG_BASED}, pipe.state)
            time.sleep(4)
            assert connection.execute(waits).fetchone()
    writer.join()
    pipe.state = pipe.finish(processes).ok().state
    assert same(pipe, "later")


@pytest.mark.long
def test_a_run_ends_although_the_sources_last_commit_is_not_on_its_disk_yet(log_pipe):  # noqa: F811
    pipe = log_pipe
    pipe.do(SIMPLE)
    publish(pipe, "things")
    follow(pipe, "things")
    with configured(pipe, wal_writer_delay="10s"):
        # the writer of WAL begins to wait so long
        time.sleep(1)
        pipe.do("set synchronous_commit = off; insert into things values (100, 'asynchronous')")
        began = time.monotonic()
        follow(pipe, "things")
        assert time.monotonic() - began < 8
    pipe.do("insert into things values (101, 'synchronous')")
    follow(pipe, "things")
    assert same(pipe, "things")


def test_a_changed_key_and_large_values_are_right_whatever_identifies_a_row_in_the_log(log_pipe):  # noqa: F811
    pipe = log_pipe
    identities = {"by_key": "default", "by_all": "full", "by_index": "using index by_index_code"}
    for table, identity in identities.items():
        pipe.do(
            f"create table {table} (id int primary key, code text not null, body text, n int);"
            f"create unique index {table}_code on {table} (id, code);"
            f"alter table {table} alter body set storage external, replica identity {identity};"
            f"insert into {table} select i, 'c' || i, repeat(i::text, 5000), 0 from generate_series(1, 9) i"
        )
    publish(pipe, *identities)
    follow(pipe, *identities)
    for table in identities:
        pipe.do(
            f"update {table} set id = 100 where id = 1; update {table} set n = 1 where id in (2, 100);"
            f"update {table} set code = 'other' where id = 3; update {table} set id = 200, code = 'x' where id = 4"
        )
    follow(pipe, *identities)
    assert [table for table in identities if not same(pipe, table)] == []


@pytest.mark.parametrize("published", [False, True], ids=["left out", "published"])
def test_generated_columns_are_followed_where_the_log_has_them_and_else_left_out_with_a_warning(log_pipe, published):  # noqa: F811
    pipe = log_pipe
    with pipe.source() as connection:
        version = connection.info.server_version
    if published and version < 18_00_00:
        pytest.skip("only 18 sends generated columns")
    pipe.do(
        "create table made (id int primary key, a int, twice int generated always as (a * 2) stored);"
        "insert into made (id, a) values (1, 1), (2, 2)"
    )
    publish(pipe, "made")
    if published:
        pipe.do(f"alter publication {SLOT} set (publish_generated_columns = stored)")
    done = follow(pipe, "made")
    assert ("without twice: the log has no values of generated columns" in done.tap_log) is not published
    pipe.do("update made set a = 10 where id = 1; insert into made (id, a) values (3, 3)")
    follow(pipe, "made")
    if published:
        assert same(pipe, "made")
    else:
        assert pipe.rows("select id, a from raw.made order by id") == [(1, 10), (2, 2), (3, 3)]
        assert pipe.rows("select count(*) from information_schema.columns where column_name = 'twice'") == [(0,)]


@pytest.mark.long
def test_an_infinite_interval_does_not_become_millions_of_years_in_an_older_warehouse(installed, make_pipe):
    if "system" not in INSTALLATIONS:
        pytest.skip("there is no second version of PostgreSQL")
    if major(INSTALLATIONS["embedded"]) < 17 or major(INSTALLATIONS["system"]) >= 17:
        pytest.skip("only 17 and later have it")
    with log_source(installed, make_pipe, warehouse="system") as pipe:
        pipe.do("create table spans (id int primary key, span interval); insert into spans values (1, '1 day')")
        publish(pipe, "spans")
        follow(pipe, "spans")
        pipe.do("insert into spans values (2, '2 days'); update spans set span = 'infinity' where id = 1")
        done = pipe.sync({"public-spans": LOG_BASED}, pipe.state)
        assert done.codes, pipe.rows("select * from raw.spans")
        assert pipe.rows("select count(*) from raw.spans where span > interval '1000 years'") == [(0,)]
