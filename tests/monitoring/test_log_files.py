"""The parts around the shipper: files that are deleted by age alone, and requests that are refused as a whole."""

from __future__ import annotations

import json
import logging
import logging.config
import os
import time
from datetime import date
from typing import Any

import pytest
import yaml

from tests.conftest import REPOSITORY
from tidemark.logs import run_log
from tidemark.logs.elasticsearch import Document, Elasticsearch, _result
from tidemark.logs.fields import entry
from tidemark.logs.meltano_lines import from_meltano
from tidemark.logs.redaction import Redactor
from tidemark.logs.settings import ElasticsearchSettings


@pytest.fixture
def log_dir(tmp_path, monkeypatch):
    monkeypatch.setenv("MELTANO_PROJECT_ROOT", str(REPOSITORY))
    monkeypatch.setenv("TIDEMARK_LOG_DIR", str(tmp_path))
    return tmp_path


def test_files_are_deleted_by_their_age_and_not_by_their_number(log_dir, monkeypatch):
    monkeypatch.setenv("TIDEMARK_LOG_KEEP_DAYS", "2")
    # each line begins a file
    handler = run_log.RunLogHandler(maxBytes=10)
    log = run_log.RunLog("a-run")
    log._handler = handler
    for number in range(12):
        log.write(f"line {number}")
    rotated = sorted(log_dir.glob("meltano.jsonl.*"), key=lambda path: path.stat().st_mtime_ns)
    assert len(rotated) == 11
    past = time.time() - 3 * 86_400
    for path in rotated[:4]:
        os.utime(path, (past, past))
    log.write("one more")
    kept = [json.loads(path.read_text())["message"] for path in log_dir.glob("meltano.jsonl*")]
    assert sorted(kept) == sorted([*(f"line {number}" for number in range(4, 12)), "one more"])
    handler.close()


def test_a_log_that_cannot_be_written_ends_nothing_and_prints_nothing(log_dir, monkeypatch, capfd):
    log = run_log.RunLog("a-run")
    log.write("first")
    assert (log_dir / "meltano.jsonl").stat().st_mode & 0o777 == 0o640

    def full(_: str) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(log._handler, "do_write", full)
    log.write("second")
    monkeypatch.setenv("TIDEMARK_LOG_DIR", "/proc/no/such/place")
    run_log.RunLog("another").write("third")
    assert capfd.readouterr() == ("", "")
    assert log._handler
    log._handler.close()


@pytest.mark.usefixtures("log_dir")
def test_meltano_runs_on_where_its_log_can_not_be_written(monkeypatch, capfd):
    config = yaml.safe_load((REPOSITORY / "logging.yaml").read_text())["handlers"]["file"]
    del config["formatter"], config["level"]
    for name, value in (("TIDEMARK_LOG_DIR", "/proc/no/such/place"), ("TIDEMARK_LOG_KEEP_DAYS", "0")):
        with monkeypatch.context() as context:
            context.setenv(name, value)
            made = logging.config.DictConfigurator({"formatters": {}}).configure_handler(dict(config))
        assert isinstance(made, logging.NullHandler)
        assert "this run is not logged to a file" in capfd.readouterr().err
    made = logging.config.DictConfigurator({"formatters": {}}).configure_handler(dict(config))
    assert isinstance(made, run_log.RunLogHandler)
    made.close()


def test_a_line_waits_where_the_index_of_its_day_can_not_be_created():
    error = {"type": "validation_exception", "reason": "Validation Failed: 1: this action would add [2] shards, but …;"}
    assert _result({"status": 400, "error": error}).refused is False
    assert _result({"status": 400, "error": {"type": "document_parsing_exception", "reason": "no"}}).refused is True


def test_a_password_that_is_a_word_hides_no_field_that_lines_are_found_by():
    line = entry("login as postgres failed", level="info", dataset="postgresql.log", service="postgresql")
    hidden = Redactor({"SOURCE_SUPERUSER_PASSWORD": "postgres"})(
        {**line, "tidemark.other": {"service.name": "postgres"}}
    )
    assert hidden["message"] == "login as *** failed"
    assert (hidden["service.name"], hidden["event.dataset"]) == ("postgresql", "postgresql.log")
    assert hidden["tidemark.other"] == {"service.name": "***"}


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        ("Key (email)=(a@b.c) already exists.", "Key (email)=(…) already exists."),
        ("Key (email)=(a (b) c) is duplicated.", "Key (email)=(…) is duplicated."),
        ("Key (r)=([1,2)) conflicts with existing key (r)=([1,3)).", "Key (r)=(…)."),
        (
            "Partition key of the failing row contains (email) = (a@b.c).",
            "Partition key of the failing row contains (email) = (…).",
        ),
        ("Failing row contains (1, a@b.c).", "Failing row contains (…)."),
    ],
)
def test_values_of_rows_are_in_no_line_of_meltano_or_dbt(said, shown):
    line = from_meltano({"event": f"it failed DETAIL:  {said}", "error": {"code": "x"}}, logger="dbt")
    assert line["message"] == line["error.message"] == f"it failed DETAIL:  {shown}"


class Refusing:
    """A session with an Elasticsearch that refuses a whole request for one line, or for its size."""

    def request(self, _method: str, _url: str, *, data: bytes, **_: Any) -> Any:
        lines = data.count(b"\n") // 2
        status = 400 if b"poison" in data else 413 if lines > 3 else 200
        body = {"items": [{"index": {"status": 201}}] * lines} if status == 200 else {"error": {"reason": "no"}}
        return type("Answer", (), {"status_code": status, "text": "no", "json": staticmethod(lambda: body)})


def test_one_line_that_spoils_a_request_is_refused_alone():
    client = Elasticsearch(ElasticsearchSettings(url="http://127.0.0.1:9"), REPOSITORY)
    client._session = Refusing()
    texts = [f"line {number}" for number in range(10)]
    texts[6] = "poison"
    lines = [entry(text, level="info", dataset="test", service="test") for text in texts]
    results = client.store([Document.of(line) for line in lines])
    assert [result.stored for result in results] == [text != "poison" for text in texts]
    assert [result.refused for result in results] == [text == "poison" for text in texts]


def test_a_line_whose_id_elasticsearch_would_refuse_gets_one_of_the_same_length_always():
    line = {**entry("x", level="info", dataset="test", service="test"), "event.id": "i" * 600}
    first, again = Document.of(line), Document.of(line)
    assert first.encoded == again.encoded
    assert len(json.loads(first.encoded.splitlines()[0])["index"]["_id"]) == 32


def test_only_daily_indices_are_deleted_by_age(monkeypatch):
    client = Elasticsearch(ElasticsearchSettings(url="http://127.0.0.1:9"), REPOSITORY)
    names = ["tidemark-logs-2025.01.01", "tidemark-logs-2025-kept", "tidemark-logs-2025.01.01-copy"]
    answer = type("Answer", (), {"ok": True, "json": staticmethod(lambda: {key: {} for key in names})})
    monkeypatch.setattr(client, "_ask", lambda *_: answer)
    client._has_policies = False
    assert client.delete_old(date(2026, 1, 1)) == names[:1]
