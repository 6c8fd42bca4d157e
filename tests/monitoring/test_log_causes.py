"""Logs of real runs in Elasticsearch's stand-in: one query finds each fault's cause, and no secret is in them."""

from __future__ import annotations

import json
import os
import re
import time
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import psutil
import psycopg
import pytest

from tests import leaks
from tests.conftest import REPOSITORY
from tests.integration.stages import make_checkout
from tests.monitoring.sink import Sink

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.integration.checkout import Checkout

pytestmark = pytest.mark.monitoring
LOAD = ("tap-postgres", "target-postgres")
QUOTE = "'"
PAGE = (REPOSITORY / "docs" / "how-to" / "logs.md").read_text()


def documented(run_id: str) -> str:
    """Return the page's query for a run; `and` and `or` are capitals in Lucene's words, and small in Kibana's."""
    found = re.search(r"^ {4}(tidemark\.run_id : .*)$", PAGE, re.MULTILINE)
    assert found
    query = re.sub(r'"[0-9a-f-]{36}"', f'"{run_id}"', found[1])
    return re.sub(r"\b(and|or)\b", lambda word: word[1].upper(), query).replace(" : ", ":")


@contextmanager
def altered(checkout: Checkout, side: str, there: str, back: str) -> Iterator[None]:
    with checkout.connect(side) as connection:
        connection.execute(there)
        try:
            yield
        finally:
            connection.execute(back)


@contextmanager
def written(path, text: str) -> Iterator[None]:
    before = path.read_text() if path.exists() else None
    path.write_text(text)
    try:
        yield
    finally:
        path.write_text(before) if before is not None else path.unlink()


def log_as_json(checkout: Checkout) -> None:
    """Let the warehouse's server log as docs/how-to/logs.md says."""
    settings = re.findall(r"^ {4}(log\w+) = (.+)$", PAGE, re.MULTILINE)
    assert len(settings) > 5
    with checkout.connect("warehouse") as connection:
        for name, value in settings:
            connection.execute(f"alter system set {name} = {value if value.startswith(QUOTE) else repr(value)}")
        directory = Path(*connection.execute("show data_directory").fetchone()).parent / "log"
        connection.execute(f"alter system set log_directory = '{directory}'")
    checkout.tidemark("down")
    checkout.tidemark("up")


def failed(checkout: Checkout, *blocks: str, env: dict[str, str] | None = None) -> str:
    """Run the blocks, which must fail; return the run's id."""
    run_id = str(uuid4())
    done = checkout.run("tidemark", "run", *blocks, "--run-id", run_id, env=env)
    assert done.returncode not in {0, -9}, done.stdout
    return run_id


def bad_password(checkout: Checkout) -> str:
    # naming the host makes it the user's own server, whose passwords Tidemark does not set
    return failed(checkout, *LOAD, env={"TAP_POSTGRES_HOST": "127.0.0.1", "TAP_POSTGRES_PASSWORD": "wrong-secret"})


def missing_column(checkout: Checkout) -> str:
    rename = "alter table orders rename column {} to {}"
    with altered(checkout, "source", rename.format("updated_at", "gone"), rename.format("gone", "updated_at")):
        return failed(checkout, *LOAD)


def failing_test(checkout: Checkout) -> str:
    with written(checkout.root / "transform" / "tests" / "planted_test.sql", "select 1 as wrong"):
        return failed(checkout, "dbt-postgres:test")


def broken_model(checkout: Checkout) -> str:
    model = checkout.shop / "models" / "staging" / "stg_products.sql"
    with written(model, model.read_text().replace("select", "select no_such_column,", 1)):
        return failed(checkout, "dbt-postgres:run")


@contextmanager
def locked(checkout: Checkout) -> Iterator[None]:
    with checkout.connect("warehouse") as connection, connection.transaction():
        connection.execute("lock table raw.orders")
        with checkout.connect("source") as source:
            source.execute("update orders set updated_at = now() where order_id < 5")
        yield


def lock_timeout(checkout: Checkout) -> str:
    with locked(checkout):
        return failed(checkout, *LOAD, env={"TARGET_POSTGRES_LOCK_TIMEOUT": "1"})


def killed_target(checkout: Checkout) -> str:
    run_id = str(uuid4())
    with locked(checkout):
        process = checkout.start("run", *LOAD, "--run-id", run_id)
        deadline = time.monotonic() + 60
        while not (targets := _targets(process.pid)) or not _waits(checkout):
            assert time.monotonic() < deadline
            time.sleep(0.1)
        for target in targets:
            target.kill()
        process.communicate(timeout=60)
    assert process.returncode
    return run_id


def _targets(pid: int) -> list[psutil.Process]:
    found = []
    for child in psutil.Process(pid).children(recursive=True):
        try:
            if any("tidemark-target-postgres" in word for word in child.cmdline()):
                found.append(child)
        except psutil.Error:
            continue
    return found


def _waits(checkout: Checkout) -> bool:
    query = "select count(*) from pg_stat_activity where wait_event_type = 'Lock' or query like '%lock%nowait%'"
    return checkout.rows("warehouse", query)[0][0] > 0


def warehouse_away(checkout: Checkout) -> str:
    return failed(checkout, *LOAD, env={"TARGET_POSTGRES_HOST": "127.0.0.1", "TARGET_POSTGRES_PORT": "9"})


def written_and_failed(checkout: Checkout) -> dict[str, str]:
    """Fail a statement in a transaction that wrote, with dbt's comment; return the run's id and the transaction's."""
    run_id = str(uuid4())
    with checkout.connect("warehouse") as connection, suppress(psycopg.Error), connection.transaction():
        connection.execute("create table planted ()")
        row = connection.execute("select pg_current_xact_id()::text").fetchone()
        connection.execute(f"/* tidemark run {run_id}, model planted */ select 1 / 0")
    assert row
    return {"by_hand": run_id, "transaction": row[0]}


FAULTS = {
    bad_password: ("source_unreachable", "password authentication failed", {}),
    missing_column: ("column_missing", "updated_at", {"tidemark.stream": "public-orders"}),
    failing_test: ("tests_failed", "planted_test", {"tidemark.model": "planted_test"}),
    broken_model: ("models_failed", "no_such_column", {"tidemark.model": "stg_products"}),
    lock_timeout: ("lock_busy", "pid ", {"tidemark.stream": "public-orders"}),
    killed_target: ("process_gone", "Loader failed", {}),
    warehouse_away: ("warehouse_unreachable", "refused", {}),
}


@pytest.fixture(scope="module")
def shipped() -> Iterator[tuple[Checkout, Sink, dict[str, str]]]:
    """A project after runs with each fault, with masks and verbose logs; their lines are in the sink."""
    with Sink() as sink:
        for checkout in make_checkout(stage="built"):
            log_as_json(checkout)
            masks = {"public-customers": {"email": "sha256", "phone": "redact"}}
            checkout.env |= {
                "TAP_POSTGRES_MASKS": json.dumps(masks),
                "TAP_POSTGRES_MASK_SECRET": "the-key-of-masks",
                **leaks.talkative(checkout.root),
            }
            checkout.env["TIDEMARK_ELASTICSEARCH_URL"] = sink.url
            # Elasticsearch is away while the runs go on, and the shipper is killed then
            shipper = checkout.start("logs", "ship")
            runs = {"good": str(uuid4())}
            checkout.tidemark("run", *LOAD, "--run-id", runs["good"])
            runs |= {fault.__name__: fault(checkout) for fault in FAULTS}
            runs |= written_and_failed(checkout)
            shipper.kill()
            said, _ = shipper.communicate()
            assert "does not answer" in said
            sink.start()
            checkout.tidemark("logs", "ship", "--once")
            yield checkout, sink, runs


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.__name__)
def test_one_query_finds_the_cause_of_each_fault(shipped, fault):
    _, sink, runs = shipped
    code, words, fields = FAULTS[fault]
    hits: list[dict[str, Any]] = [hit["_source"] for hit in sink.search(documented(runs[fault.__name__]))]
    assert 0 < len(hits) < 30, "few enough to read"
    assert hits[-1]["event.action"] == "run-ended"
    assert hits[-1]["error.code"] == code
    said = [hit for hit in hits if words in hit["message"] and fields.items() <= hit.items()]
    assert said, [hit["message"] for hit in hits]
    # the page's curl finds the same
    asked = re.search(r'(/tidemark-logs/_search\?.*)"$', PAGE, re.MULTILINE)
    assert asked
    by_curl = sink.ask("GET", asked[1].replace("RUN_ID", runs[fault.__name__]))["hits"]["hits"]
    assert [hit["_source"]["message"] for hit in by_curl] == [hit["message"] for hit in hits]


def test_the_servers_own_lines_name_the_run_and_the_transaction_of_a_statement(shipped):
    _, sink, runs = shipped
    lines = sink.search(f'event.dataset:postgresql.log AND tidemark.run_id:"{runs["lock_timeout"]}"')
    said = [hit["_source"] for hit in lines if "lock timeout" in hit["_source"]["message"]]
    assert said
    assert {line["service.node.name"] for line in said} == {"warehouse"}
    broken = sink.search(f'event.dataset:postgresql.log AND tidemark.run_id:"{runs["broken_model"]}"')
    assert "stg_products" in {hit["_source"].get("tidemark.model") for hit in broken}
    (line,) = (hit["_source"] for hit in sink.search(f'tidemark.run_id:"{runs["by_hand"]}"'))
    assert (line["transaction.id"], line["tidemark.model"]) == (runs["transaction"], "planted")
    assert line["message"] == "division by zero"


def test_a_run_without_a_fault_has_its_rows_and_no_error(shipped):
    _, sink, runs = shipped
    assert sink.search(documented(runs["good"])) == []
    rows = sink.search(f'tidemark.run_id:"{runs["good"]}" AND event.action:"stream-ended"')
    assert {"public-customers"} <= {hit["_source"]["tidemark.stream"] for hit in rows}
    ended = sink.search(f'tidemark.run_id:"{runs["good"]}" AND event.action:"run-ended"')
    assert [hit["_source"]["event.outcome"] for hit in ended] == ["success"]


def test_every_line_of_the_files_is_there_and_none_is_refused(shipped):
    checkout, sink, _ = shipped
    lines = [line for path in (checkout.root / "logs").glob("*.jsonl*") for line in path.read_text().splitlines()]
    ours = [json.loads(line)["event.id"] for line in lines]
    servers = [hit["_id"] for hit in sink.search("event.dataset:postgresql.log")]
    written_by_it = [path.read_text() for path in checkout.root.glob(".tidemark/postgres/warehouse/log/*.json")]
    assert len(servers) == sum(text.count("\n") for text in written_by_it) > 10
    assert sorted(ours + servers) == sorted(identifier for _, identifier in sink.stored())
    assert (checkout.root / ".tidemark" / "logs-refused.jsonl").read_text() == ""


def test_no_secret_and_no_masked_value_is_in_any_line(shipped):
    checkout, sink, _ = shipped
    lines = json.dumps([hit["_source"] for hit in sink.search("*")], ensure_ascii=False)
    secrets = leaks.secrets(checkout.root) | {"mask": "the-key-of-masks", "wrong": "wrong-secret"}
    assert leaks.in_text(secrets, lines) == []
    masked = {value for row in checkout.rows("source", "select email, phone from customers") for value in row if value}
    assert len(masked) > 100
    assert [value for value in masked if value in lines] == []
    assert os.environ.get("TAP_POSTGRES_PASSWORD") is None


def test_each_saved_search_of_kibana_is_understood(shipped):
    from monitoring.logs.kibana.objects import queries  # noqa: PLC0415

    _, sink, _ = shipped
    found = {}
    for section, query in queries().items():
        lucene = re.sub(r"\b(and|or)\b", lambda word: word[1].upper(), query).replace(" : ", ":").replace(" > ", ":>")
        found[section] = len(sink.search(lucene))
    assert {"shape", "models", "tests", "load", "killed", "unreachable"} <= {
        name for name, count in found.items() if count
    }
