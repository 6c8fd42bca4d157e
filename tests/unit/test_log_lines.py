"""How lines of each program become ECS fields, and what never gets into them."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import REPOSITORY
from tidemark.logs.fields import index_of
from tidemark.logs.meltano_lines import from_meltano
from tidemark.logs.redaction import Redactor
from tidemark.logs.sources import LinePosition, reader_of

RUN = "62ba77a3-5b2c-4a53-8a2e-6d9b3b8c1f50"
POSTGRES = {
    "timestamp": "2026-11-28 19:38:33.123 UTC",
    "user": "tidemark_loader",
    "dbname": "warehouse",
    "pid": 17,
    "session_id": "692a.11",
    "line_num": 4,
    "ps": "INSERT",
    "txid": 815,
    "error_severity": "ERROR",
    "state_code": "23505",
    "message": 'duplicate key value violates unique constraint "customers_pkey"',
    "detail": "Key (email)=(ana@example.com) already exists.",
    "statement": f"/* tidemark run {RUN}, model dim_customers */ insert into t values ('ana@example.com')",
    "application_name": "dbt 00aa",
}
TASK = Path("dag_id=nightly/run_id=manual__2026-11-28/task_id=extract/attempt=2.log")


def read(path: str | Path, line: object, offset: int = 0, after: str | None = None) -> dict[str, Any]:
    reader = reader_of(Path(path))
    assert reader
    text = line if isinstance(line, str) else json.dumps(line)
    return reader(text, LinePosition(Path(path), b"the first line\n", offset, after))


def test_a_line_of_postgresql_names_run_model_and_transaction_and_no_value_of_a_row():
    fields = read("logs/target_db/postgresql-Sat.json", POSTGRES)
    assert fields["@timestamp"] == "2026-11-28T19:38:33.123000Z"
    assert fields["service.node.name"] == "target_db"
    assert (fields["tidemark.run_id"], fields["tidemark.model"], fields["transaction.id"]) == (
        RUN,
        "dim_customers",
        "815",
    )
    assert fields["postgresql.log.detail"] == "Key (email)=(…) already exists."
    assert "ana@example.com" not in json.dumps(fields)


@pytest.mark.parametrize(
    "change",
    [
        {"message": 'invalid input syntax for type inet: "ana@example.com"', "state_code": "22P02"},
        {"detail": "Failing row contains (1, ana@example.com, null)."},
        {"context": 'COPY customers, line 3, column email: "ana@example.com"'},
        {"statement": "select $x$ana@example.com$x$"},
    ],
    ids=lambda change: next(iter(change)),
)
def test_values_of_rows_are_taken_out_of_postgresqls_lines(change):
    assert "ana@example.com" not in json.dumps(read("s/x.json", {**POSTGRES, **change}))


def test_the_same_line_has_the_same_id_and_another_place_another_one():
    bouncer = "2026-11-28 12:00:00.123 UTC [7] WARNING pooler error: query_wait_timeout"
    for path, line in (("pgbouncer.log", bouncer), (TASK, {"event": "x", "timestamp": "2026-11-28T00:00:00Z"})):
        assert read(path, line) == read(path, line)
        assert read(path, line)["event.id"] != read(path, line, offset=90)["event.id"]
    again = {**POSTGRES, "line_num": 5}
    assert read("s/x.json", POSTGRES)["event.id"] == read("s/x.json", POSTGRES, offset=3)["event.id"]
    assert read("s/x.json", POSTGRES)["event.id"] != read("s/x.json", again)["event.id"]
    assert read("s/x.json", POSTGRES)["event.id"] != read("other/x.json", POSTGRES)["event.id"]


def test_a_line_of_an_airflow_task_has_the_run_id_that_the_operator_gives_its_run():
    path = REPOSITORY / "plugins" / "tidemark-airflow" / "src" / "tidemark_airflow" / "run_ids.py"
    spec = importlib.util.spec_from_file_location("run_ids", path)
    assert spec
    assert spec.loader
    run_ids = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(run_ids)
    fields = read(TASK, {"event": "Run failed", "level": "error", "timestamp": "2026-11-28T01:00:00+02:00"})
    assert fields["tidemark.run_id"] == run_ids.run_id_of("nightly", "manual__2026-11-28")
    assert (fields["airflow.task_id"], fields["airflow.attempt"]) == ("extract", 2)
    assert index_of(fields) == "tidemark-logs-2026.11.27", "the day is UTC's"


def test_a_line_in_no_known_form_gets_the_time_of_the_line_before_it():
    fields = read("pgbouncer.log", "  some continuation", after="2026-11-28T00:00:00.000000Z")
    assert fields["@timestamp"] == "2026-11-28T00:00:00.000000Z"
    with pytest.raises(ValueError, match="no time stamp"):
        read("pgbouncer.log", "some text")


def test_a_line_after_the_half_of_a_killed_writer_is_read():
    whole = {"@timestamp": "2026-11-28T00:00:00Z", "event.id": "b", "message": "m"}
    assert read("meltano.jsonl", '{"@timestamp":"2026-' + json.dumps(whole, separators=(",", ":"))) == whole


@pytest.mark.parametrize(
    ("record", "expected"),
    [
        pytest.param(
            {
                "event": "It broke",
                "error": {"code": "disk_full", "transient": True, "hint": "Make room.", "stream": "s"},
            },
            {"error.code": "disk_full", "error.message": "It broke", "tidemark.stream": "s"},
            id="error-of-a-stream",
        ),
        pytest.param(
            {"event": "boom", "plugin_exception": {"type": "KeyError", "message": "boom", "traceback": []}},
            {"error.code": "unexpected", "error.type": "KeyError", "error.message": "boom"},
            id="uncaught-exception",
        ),
        pytest.param(
            {"event": "x", "plugin_logger": "tap-postgres.public-orders", "new": 1},
            {"tidemark.stream": "public-orders", "tidemark.other": {"new": 1}},
            id="stream-of-a-logger",
        ),
        pytest.param(
            {"event": "METRIC", "metric_info": {"metric": "rows_inserted", "value": 7, "tags": {"stream": "s"}}},
            {"message": "rows_inserted: 7", "tidemark.metric.value": 7, "tidemark.stream": "s"},
            id="metric",
        ),
        pytest.param(
            {
                "event": json.dumps(
                    {
                        "data": {"status": "error", "node_info": {"node_name": "m", "resource_type": "model"}},
                        "info": {"msg": "1 of 2 ERROR", "level": "error", "name": "LogModelResult"},
                    }
                )
            },
            {"message": "1 of 2 ERROR", "log.level": "error", "tidemark.model": "m", "event.outcome": "failure"},
            id="model-of-dbt",
        ),
    ],
)
def test_a_record_of_meltano_has_the_fields_of_its_error_stream_or_model(record, expected):
    fields = from_meltano({"name": "tap-postgres", "level": "info", "run_id": RUN, **record}, logger="x")
    assert expected.items() <= fields.items()
    assert fields["tidemark.run_id"] == RUN


@pytest.mark.parametrize(
    "text",
    [
        "could not log in with hunter2hunter2",
        "postgresql://reader:s3cr3t@db/app is away",
        "host=db password=s3cr3t user=x",
        "config {'password': 's3cr3t'}",
        "create role x password 's3cr3t'",
        'a "quoted\\"secret" in JSON',
    ],
)
def test_secrets_are_hidden_wherever_they_are(text):
    redact = Redactor({"TAP_POSTGRES_PASSWORD": "hunter2hunter2", "MY_TOKEN": 'quoted"secret', "PATH": "/usr/bin"})
    hidden = json.dumps(redact({"message": text, "more": [text]}))
    assert "***" in hidden
    assert not any(secret in hidden for secret in ("hunter2", "s3cr3t", 'quoted\\\\\\"secret'))
    assert redact("password authentication failed for user x in /usr/bin") == (
        "password authentication failed for user x in /usr/bin"
    )
