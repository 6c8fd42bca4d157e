"""The code of each error in the logs of tap and target; alerts, metrics and the runbook use it."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from meltano.core.logging.parsers import SingerSDKLogParser
from structlog.stdlib import get_logger

from singer_postgres.core.errors import catalogue
from tests.conftest import REPOSITORY
from tests.singer.conftest import FULL_TABLE, INCREMENTAL

if TYPE_CHECKING:
    from pathlib import Path

    from tests.singer.conftest import Pipe, Synced

STREAM = "public-t"
TABLE = "create table t (id int primary key, n int, note text, updated_at timestamptz default now())"
# the logging configuration that Meltano gives its plugins
CONFIG = """
version: 1
disable_existing_loggers: false
formatters: {structured: {(): singer_sdk.logging.StructuredFormatter}}
handlers: {stderr: {class: logging.StreamHandler, formatter: structured, stream: "ext://sys.stderr"}}
root: {level: INFO, handlers: [stderr]}
"""


@pytest.fixture
def logged(pipe: Pipe, tmp_path: Path) -> Pipe:
    """A pipe whose programs log as for Meltano, with a table of one row in the source."""
    config = tmp_path / "logging.yaml"
    config.write_text(CONFIG)
    pipe.env["SINGER_SDK_LOG_CONFIG"] = str(config)
    pipe.do(f"{TABLE}; insert into t values (1, 1, 'a')")
    return pipe


def errors(done: Synced) -> list[dict[str, Any]]:
    """Return the `error` of each line with one, as Meltano's parser reads it."""
    records = map(SingerSDKLogParser().parse, (done.tap_log + done.target_log).splitlines())
    return [record.extra["error"] for record in records if record and "error" in record.extra]


def code(done: Synced) -> str:
    """Return the code of the error that ended the run."""
    assert done.tap_status or done.target_status
    found = [error for error in errors(done) if "stream" not in error]
    assert len(found) == 1, found
    (error,) = found
    (kind,) = [kind for kind in catalogue() if kind.code == error["code"]]
    assert error["hint"] == kind.cure
    # if several streams failed, a permanent failure stands for all
    assert error["transient"] is kind.transient or kind.code == "streams_failed"
    return str(error["code"])


def test_each_error_of_the_source_has_its_code(logged):
    logged.sync({STREAM: INCREMENTAL}).ok()
    logged.do("create table keyless (n int, updated_at timestamptz)")
    found = {code(logged.sync({"public-keyless": INCREMENTAL}))}
    gone = logged.catalog({STREAM: INCREMENTAL})
    logged.do("alter table t rename to elsewhere")
    found.add(code(logged.sync(gone)))
    logged.do("alter table elsewhere rename to t; create view v as select id, 1 / (n - 1) as x from t")
    found.add(code(logged.sync({"public-v": FULL_TABLE})))
    logged.tap["masks"] = {STREAM: {"nothing": "null"}}
    found.add(code(logged.sync({STREAM: INCREMENTAL})))
    logged.tap["masks"] = {}
    found.add(code(logged.sync({STREAM: INCREMENTAL}, {"bookmarks": []})))
    assert found == {"key_missing", "table_missing", "value_invalid", "setting_invalid", "state_invalid"}


def test_each_error_of_the_warehouse_has_its_code(logged):
    done = logged.sync({STREAM: INCREMENTAL}).ok()
    with logged.warehouse() as connection:
        connection.execute("alter table raw.t add check (n < 2)")
        logged.do("update t set n = 7, updated_at = now() + interval '1 second'")
        found = {code(logged.sync({STREAM: INCREMENTAL}, done.state))}
        connection.execute("alter table raw.t drop constraint t_n_check, alter note set not null")
        logged.do("update t set note = null")
        found.add(code(logged.sync({STREAM: INCREMENTAL}, done.state)))
        connection.execute("alter table raw.t alter note drop not null; truncate raw.t")
        found.add(code(logged.sync({STREAM: INCREMENTAL}, done.state)))
        history = "select error_code from raw._tidemark_runs order by started_at desc, ended_at desc limit 1"
        assert connection.execute(history).fetchone() == ("state_ahead",)
        logged.do("alter table t alter n type date using current_date")
        found.add(code(logged.sync({STREAM: INCREMENTAL}, done.state)))
    assert found == {"constraint_violation", "not_null_violation", "state_ahead", "column_retyped"}


def test_an_unreachable_server_and_a_refused_login_have_their_codes(logged):
    catalog = logged.catalog({STREAM: INCREMENTAL})
    source, warehouse = logged.source_url, logged.warehouse_url
    logged.source_url = psycopg.conninfo.make_conninfo(source, port=1)
    assert code(logged.sync(catalog)) == "source_unreachable"
    logged.source_url = psycopg.conninfo.make_conninfo(source, password="wrong")
    assert code(logged.sync(catalog)) == "login_refused"
    logged.source_url = source
    logged.warehouse_url = psycopg.conninfo.make_conninfo(warehouse, port=1)
    assert code(logged.sync(catalog)) == "warehouse_unreachable"
    logged.warehouse_url = psycopg.conninfo.make_conninfo(warehouse, dbname="nowhere")
    assert code(logged.sync(catalog)) == "login_refused"


def test_a_failed_stream_has_its_code_and_the_run_has_that_of_all_failed_streams(logged):
    logged.do("create table u (n int); create view v as select id, 1 / (n - 1) as x from t")
    streams = {STREAM: INCREMENTAL, "public-u": INCREMENTAL, "public-v": FULL_TABLE}
    logged.tap["on_stream_error"] = "continue"
    done = logged.sync(streams)
    assert {(error["stream"], error["code"]) for error in errors(done) if "stream" in error} == {
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
