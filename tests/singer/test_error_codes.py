"""The code of each error in the logs of tap and target; alerts, metrics and the runbook use it."""

from __future__ import annotations

import subprocess
import threading
from typing import TYPE_CHECKING

import psycopg
import pytest
from meltano.core.logging.parsers import SingerSDKLogParser
from structlog.stdlib import get_logger

from singer_postgres.core.driver_errors import kind_of
from singer_postgres.core.errors import TransactionOpenError, catalogue
from singer_postgres.core.warehouse import connections
from tests.conftest import REPOSITORY
from tests.singer.conftest import FULL_TABLE, INCREMENTAL
from tests.singer.test_crashes import wait_for

if TYPE_CHECKING:
    from tests.singer.conftest import Pipe, Synced

STREAM = "public-t"
TABLE = "create table t (id int primary key, n int, note text, updated_at timestamptz default now())"


@pytest.fixture
def filled(pipe: Pipe) -> Pipe:
    """A pipe with a table of one row in the source."""
    pipe.do(f"{TABLE}; insert into t values (1, 1, 'a')")
    return pipe


def code(done: Synced) -> str:
    """Return the code of the error that ended the run."""
    assert done.tap_status or done.target_status
    found = [error for error in done.failures if "stream" not in error]
    assert len(found) == 1, found
    (error,) = found
    (kind,) = [kind for kind in catalogue() if kind.code == error["code"]]
    assert error["hint"] == kind.cure
    # if several streams failed, a permanent failure stands for all
    assert error["transient"] is kind.transient or kind.code == "streams_failed"
    return str(error["code"])


def test_each_error_of_the_source_has_its_code(filled):
    filled.sync({STREAM: INCREMENTAL}).ok()
    filled.do("create table keyless (n int, updated_at timestamptz)")
    found = {code(filled.sync({"public-keyless": INCREMENTAL}))}
    gone = filled.catalog({STREAM: INCREMENTAL})
    filled.do("alter table t rename to elsewhere")
    found.add(code(filled.sync(gone)))
    filled.do("alter table elsewhere rename to t; create view v as select id, 1 / (n - 1) as x from t")
    found.add(code(filled.sync({"public-v": FULL_TABLE})))
    filled.tap["masks"] = {STREAM: {"nothing": "null"}}
    found.add(code(filled.sync({STREAM: INCREMENTAL})))
    filled.tap["masks"] = {}
    found.add(code(filled.sync({STREAM: INCREMENTAL}, {"bookmarks": []})))
    assert found == {"key_missing", "table_missing", "value_invalid", "setting_invalid", "state_invalid"}


def test_each_error_of_the_warehouse_has_its_code(filled):
    done = filled.sync({STREAM: INCREMENTAL}).ok()
    with filled.warehouse() as connection:
        connection.execute("alter table raw.t add check (n < 2)")
        filled.do("update t set n = 7, updated_at = now() + interval '1 second'")
        found = {code(filled.sync({STREAM: INCREMENTAL}, done.state))}
        connection.execute("alter table raw.t drop constraint t_n_check, alter note set not null")
        filled.do("update t set note = null")
        found.add(code(filled.sync({STREAM: INCREMENTAL}, done.state)))
        connection.execute("alter table raw.t alter note drop not null; truncate raw.t")
        found.add(code(filled.sync({STREAM: INCREMENTAL}, done.state)))
        history = "select error_code from raw._tidemark_runs order by started_at desc, ended_at desc limit 1"
        assert connection.execute(history).fetchone() == ("state_ahead",)
        filled.do("alter table t alter n type date using current_date")
        found.add(code(filled.sync({STREAM: INCREMENTAL}, done.state)))
    assert found == {"constraint_violation", "not_null_violation", "state_ahead", "column_retyped"}


def test_an_unreachable_server_and_a_refused_login_have_their_codes(filled):
    catalog = filled.catalog({STREAM: INCREMENTAL})
    source, warehouse = filled.source_url, filled.warehouse_url
    filled.source_url = psycopg.conninfo.make_conninfo(source, port=1)
    assert code(filled.sync(catalog)) == "source_unreachable"
    filled.source_url = psycopg.conninfo.make_conninfo(source, password="wrong")
    assert code(filled.sync(catalog)) == "login_refused"
    filled.source_url = source
    filled.warehouse_url = psycopg.conninfo.make_conninfo(warehouse, port=1)
    assert code(filled.sync(catalog)) == "warehouse_unreachable"
    filled.warehouse_url = psycopg.conninfo.make_conninfo(warehouse, dbname="nowhere")
    assert code(filled.sync(catalog)) == "login_refused"


def test_each_error_of_a_server_that_answers_has_its_code(filled):
    # its table of locks is full, somebody cancels the statement, and a function says that another server is gone
    filled.do(
        """
        create view crowded as select n as id from generate_series(1, 1000000) n where pg_try_advisory_xact_lock(n);
        create view cancelled as
            select id, case when pg_cancel_backend(pg_backend_pid()) then pg_sleep(9)::text end as x from t;
        create function away() returns int language plpgsql
            as $$ begin raise exception 'gone' using errcode = '08006'; end $$;
        create view elsewhere as select public.away() as id
        """
    )
    done = filled.sync({f"public-{name}": FULL_TABLE for name in ("crowded", "cancelled", "elsewhere")})
    assert {error["stream"]: error["code"] for error in done.failures if "stream" in error} == {
        "public-crowded": "out_of_memory",
        "public-cancelled": "statement_cancelled",
        "public-elsewhere": "statement_failed",
    }


def test_a_warehouse_that_takes_no_writes_has_its_code(filled):
    catalog = filled.catalog({STREAM: INCREMENTAL})
    with filled.warehouse() as connection:
        connection.execute(f"alter database {connection.info.dbname} set default_transaction_read_only = on")
    filled.sync(catalog).refused("server_read_only")


def test_a_directory_of_chunks_that_can_not_be_written_has_its_code(filled):
    (filled.directory / "file").touch()
    filled.tap["chunk_dir"] = str(filled.directory / "file" / "chunks")
    assert "Not a directory" in filled.sync({STREAM: INCREMENTAL}).refused("chunk_directory_unusable")


def test_a_refused_connection_and_a_deadlock_have_their_codes(pipe):
    # tap and target try these again for half a minute
    with pipe.source() as connection:
        name = connection.info.dbname
        connection.execute(f"create role {name} login password 'few' connection limit 0")
        try:
            with pytest.raises(psycopg.OperationalError) as full:
                pipe.source(user=name, password="few")
        finally:
            connection.execute(f"drop role {name}")
    assert kind_of(full.value, side="source").code == "too_many_connections"
    with pipe.warehouse() as one, pipe.warehouse() as other:
        # the server ends the statement of the session that looks for deadlocks first
        one.execute("set deadlock_timeout = '1ms'; begin; select pg_advisory_xact_lock(1)")
        other.execute("set deadlock_timeout = '1min'; begin; select pg_advisory_xact_lock(2)")
        waiting = threading.Thread(target=other.execute, args=["select pg_advisory_xact_lock(1)"])
        waiting.start()
        wait_for(lambda: pipe.rows("select from pg_locks where locktype = 'advisory' and not granted"))
        with pytest.raises(psycopg.errors.DeadlockDetected) as dead:
            one.execute("select pg_advisory_xact_lock(2)")
        one.rollback()
        waiting.join()
    assert kind_of(dead.value, side="warehouse").code == "deadlock"


def test_a_transaction_that_outlives_its_broken_connection_has_its_code(pipe, monkeypatch):
    monkeypatch.setattr(connections, "_SETTLE_S", 0)
    with pipe.warehouse() as open_one, pipe.warehouse() as connection:
        open_one.execute("begin")
        ((xid,),) = open_one.execute("select pg_current_xact_id()::text").fetchall()
        with pytest.raises(TransactionOpenError) as raised:
            connections.was_committed(connection, xid)
    assert raised.value.code == "transaction_open"


def test_a_failed_stream_has_its_code_and_the_run_has_that_of_all_failed_streams(filled):
    filled.do("create table u (n int); create view v as select id, 1 / (n - 1) as x from t")
    streams = {STREAM: INCREMENTAL, "public-u": INCREMENTAL, "public-v": FULL_TABLE}
    filled.tap["on_stream_error"] = "continue"
    done = filled.sync(streams)
    assert {(error["stream"], error["code"]) for error in done.failures if "stream" in error} == {
        ("public-u", "key_missing"),
        ("public-v", "value_invalid"),
    }
    assert code(done) == "streams_failed"


def test_a_field_that_would_end_meltanos_run_is_left_out_of_the_log():
    program = (
        "import logging, sys\n"
        "from singer_sdk.logging import StructuredFormatter\n"
        "from singer_postgres.singer import log_records\n"
        "log_records.install()\n"
        "handler = logging.StreamHandler(sys.stdout)\n"
        "handler.setFormatter(StructuredFormatter())\n"
        "extra = {'event': 1, 'level': 2, 'method_name': 3, 'positional_args': 4, 'rows': 5}\n"
        "logging.getLogger().addHandler(handler)\n"
        "logging.getLogger().warning('hello', extra=extra)\n"
    )
    python = REPOSITORY / ".meltano/extractors/tap-postgres/venv/bin/python"
    environment = {"PYTHONPATH": str(REPOSITORY / "plugins/singer-postgres/src")}
    line = subprocess.run([python, "-c", program], env=environment, capture_output=True, text=True, check=True).stdout
    record = SingerSDKLogParser().parse(line)
    assert record
    assert record.extra["rows"] == 5
    # as Meltano does with a plugin's line
    get_logger().log(record.level, record.message, **record.extra)
