"""Airflow on one machine as `make airflow` runs it: real servers and runs. The tests depend on their order.

Those of test_sources.py and test_stop.py go on with the same Airflow.
"""

from __future__ import annotations

import re
import time
import uuid
from typing import TYPE_CHECKING, Any

import pytest
import requests

from tests import leaks
from tests.airflow.browser import CHROMIUM, looking_at
from tests.airflow.server import until
from tests.conftest import REPOSITORY
from tidemark.logs.sources import LinePosition, reader_of

if TYPE_CHECKING:
    from collections.abc import Iterator
    from contextlib import AbstractContextManager

    from tests.airflow.server import Airflow

pytestmark = [pytest.mark.airflow, pytest.mark.timeout(600)]
# the README's pictures are made here
SCREENSHOTS = REPOSITORY / ".tidemark" / "screenshots"
TABLES = ("customers", "products", "orders", "order_items")
WHOLE = "hourly-sync-and-transform"
LOAD = "load"
OF_A_LOAD = ("bin/tidemark run", "bin/meltano", "tidemark-tap-postgres", "tidemark-target-postgres")


def equal_on_both_sides(airflow: Airflow) -> None:
    """Compare each row of the source's tables with raw."""
    done = airflow.checkout.run("tidemark", "reconcile")
    assert done.returncode == 0, done.stdout + done.stderr


def locked(airflow: Airflow, table: str) -> AbstractContextManager[None]:
    """Lock a table of the warehouse against loads, but not against readers."""
    from contextlib import contextmanager  # noqa: PLC0415

    @contextmanager
    def lock() -> Iterator[None]:
        with airflow.checkout.connect("warehouse") as connection, connection.transaction():
            connection.execute(f"lock table {table} in exclusive mode")
            yield

    return lock()


def as_shipped(airflow: Airflow) -> list[dict[str, Any]]:
    """Return the lines of the tasks' files as `tidemark logs ship` sends them."""
    found = []
    for path in (airflow.checkout.root / ".tidemark" / "airflow" / "logs").rglob("attempt=*.log"):
        reader = reader_of(path)
        assert reader
        found += [reader(line, LinePosition(path, b"", at)) for at, line in enumerate(path.read_text().splitlines())]
    return found


def test_dags_exist_and_are_paused(airflow):
    found = {dag["dag_id"]: dag["is_paused"] for dag in airflow.get("/dags")["dags"]}
    assert found == dict.fromkeys(
        (WHOLE, LOAD, "models", "hurried-load", "nightly-reconcile", "nightly-backup", "backfill"), True
    )
    assert airflow.get("/importErrors")["import_errors"] == []
    assert f"{airflow.url}\n  user admin, password {airflow.password}" in airflow.said


def test_a_run_fills_the_warehouse_and_says_so(airflow, receiver):
    airflow.unpause(WHOLE)
    run = airflow.run(WHOLE)
    assert airflow.tasks(WHOLE, run) == dict.fromkeys(("extract_load", "dbt_run", "dbt_test"), ("success", 1))
    equal_on_both_sides(airflow)
    orders = "select count(*) from {} where status <> 'cancelled'"
    source = airflow.checkout.rows("source", orders.format("public.orders"))
    facts = airflow.checkout.rows("warehouse", "select count(*) from marts.fct_orders where not is_cancelled")
    assert facts == source != [(0,)]
    # one id in all of it
    (identifier,) = {row[0] for row in airflow.checkout.rows("warehouse", "select run_id from raw._tidemark_runs")}
    assert uuid.UUID(identifier).version == 5
    models = airflow.checkout.rows("warehouse", "select distinct run_id from marts._tidemark_model_runs")
    assert models == [(identifier,)]
    log = airflow.log(WHOLE, run, "extract_load")
    texts = [text for _, text in log]
    assert any(identifier in text for text in texts)
    counted = "public-orders: 1,000 read, 1,000 new, 0 changed, 0 deleted; from the source "
    assert [level for level, text in log if text.startswith(counted)] == ["info"]
    assert any(text.startswith(f"Run {identifier} succeeded; ") for text in texts)
    assert not [text for level, text in log if level in {"error", "critical"}]
    shipped = as_shipped(airflow)
    assert {fields["tidemark.run_id"] for fields in shipped} == {identifier}
    assert {fields["airflow.task_id"] for fields in shipped} == {"extract_load", "dbt_run", "dbt_test"}
    # Airflow's page begins with the name of the file
    assert set(texts[2:]) <= {fields["message"] for fields in shipped}
    for asset in ("raw", "marts"):
        (event,) = airflow.events(asset)
        assert event["extra"]["run_id"] == identifier
        assert event["extra"]["rows"] > 0
    assert receiver.take() == []


@pytest.mark.usefixtures("airflow")
def test_each_process_of_airflow_sends_its_metrics_and_tasks_add_none(metrics):
    def page() -> str:
        found = requests.get(metrics, timeout=10).text
        return found if "airflow_pool_open_slots{" in found and "dagrun_duration_success" in found else ""

    found = until(page, "the scheduler's metrics", seconds=30)
    heartbeat = r'^airflow_{}_heartbeat_total{{instance="([^"]+)",job="airflow"}} '
    processes = {
        name: set(re.findall(heartbeat.format(name), found, re.MULTILINE))
        for name in ("scheduler", "dag_processor", "triggerer")
    }
    assert [len(own) for own in processes.values()] == [1, 1, 1]
    assert set(re.findall(r'instance="([^"]+)"', found)) == set.union(*processes.values())
    # labels that grow with each run
    assert not re.search(r"run_id=|task_id=|manual__", found), found


def test_a_run_that_moves_no_row_writes_no_event(airflow):
    # the first run's rows have old stamps, so no run reads them again
    airflow.run(WHOLE)
    assert [len(airflow.events(asset)) for asset in ("raw", "marts")] == [1, 1]


def test_an_unreachable_source_is_retried_reported_once_and_caught_up_with(airflow, receiver):
    with airflow.checkout.connect("source", "postgres") as connection:
        connection.execute("alter database shop allow_connections false")
        run = airflow.trigger(WHOLE)
        assert airflow.wait(WHOLE, run) == "failed"
        connection.execute("alter database shop allow_connections true")
    assert airflow.tasks(WHOLE, run)["extract_load"] == ("failed", 2)
    assert airflow.tasks(WHOLE, run)["dbt_run"][0] == "upstream_failed"
    (alert,) = until(receiver.take, "an alert")
    assert "extract_load" in alert["text"]
    assert "unreachable" in str(alert)
    errors = [text for level, text in airflow.log(WHOLE, run, "extract_load", 2) if level == "error"]
    assert any("Cannot connect to the source database 'shop'" in text for text in errors)
    airflow.checkout.tidemark("demo", "change", "--rows", "100", "--seed", "1")
    airflow.run(WHOLE)
    done = airflow.checkout.run("tidemark", "reconcile", "--repair", "--allow-deletes", "20%")
    assert done.returncode == 0, done.stderr
    assert [len(airflow.events(asset)) for asset in ("raw", "marts")] == [2, 2]
    assert receiver.take() == []


def test_a_task_that_exceeds_its_time_ends_with_all_its_processes_and_the_retry_succeeds(airflow, receiver):
    airflow.unpause("hurried-load")
    airflow.checkout.tidemark("demo", "change", "--rows", "100", "--seed", "2")
    with locked(airflow, "raw.orders"), airflow.tasks_as_installed():
        run = airflow.trigger("hurried-load")
        until(
            lambda: airflow.tasks("hurried-load", run).get("extract_load", ("", 0))[0] == "up_for_retry",
            "the first try out of time",
        )
        assert not [each for each in airflow.processes() if any(name in each for name in OF_A_LOAD)]
        until(lambda: advisory_locks(airflow) == 0, "locks are free", seconds=20)
    assert airflow.wait("hurried-load", run) == "success", airflow.logs("hurried-load", run)
    assert airflow.tasks("hurried-load", run) == {"extract_load": ("success", 2)}
    assert "Process timed out" in airflow.logs("hurried-load", run)
    assert receiver.take() == []


def advisory_locks(airflow: Airflow) -> int:
    return airflow.checkout.rows("warehouse", "select count(*)::int from pg_locks where locktype = 'advisory'")[0][0]


def test_a_scheduler_killed_during_a_run_comes_back_and_the_run_succeeds(airflow, receiver):
    airflow.unpause(LOAD)
    airflow.checkout.tidemark("demo", "change", "--rows", "100", "--seed", "3")
    with locked(airflow, "raw.orders"), airflow.tasks_as_installed():
        run = airflow.trigger(LOAD)
        until(lambda: [each for each in airflow.processes() if "target-postgres" in each], "the target runs")
        before = airflow.component("scheduler")
        before.kill()
        until(lambda: airflow.component("scheduler").pid != before.pid, "a scheduler again", seconds=60)
        # it has checked what the first one left
        time.sleep(5)
    assert airflow.wait(LOAD, run) == "success", airflow.logs(LOAD, run)
    done = airflow.checkout.run("tidemark", "reconcile", "--repair", "--allow-deletes", "20%")
    assert done.returncode == 0, done.stderr
    assert receiver.take() == []


def test_a_backfill_from_the_ui_reloads_and_builds_rows_changed_without_a_stamp(airflow, receiver):
    airflow.unpause("backfill")
    before = airflow.checkout.run("meltano", "state", "get", "dev:tap-postgres-to-target-postgres").stdout
    with airflow.checkout.connect("source") as connection:
        connection.execute(
            "alter table orders disable trigger all; update orders set shipping_fee = 7.77 where order_id = 5; "
            "alter table orders enable trigger all"
        )
    run = airflow.run("backfill", streams=["public-orders"], full_refresh=True)
    assert set(airflow.tasks("backfill", run)) == {"extract_load", "dbt_run", "dbt_test"}
    fact = airflow.checkout.rows("warehouse", "select shipping_fee::float from marts.fct_orders where order_id = 5")
    assert fact == [(7.77,)]
    after = airflow.checkout.run("meltano", "state", "get", "dev:tap-postgres-to-target-postgres").stdout
    assert after == before != ""
    assert receiver.take() == []


def test_a_backfill_of_an_unknown_stream_fails_at_once_and_does_nothing(airflow, receiver):
    runs = airflow.checkout.rows("warehouse", "select count(*) from raw._tidemark_runs")
    run = airflow.trigger("backfill", streams=["public-nope"], full_refresh=True)
    assert airflow.wait("backfill", run) == "failed"
    assert airflow.tasks("backfill", run)["extract_load"] == ("failed", 1)
    (alert,) = until(receiver.take, "an alert")
    assert "public-nope" in str(alert)
    assert airflow.checkout.rows("warehouse", "select count(*) from raw._tidemark_runs") == runs


@pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium (Debian: chromium)")
def test_a_person_sees_the_graph_and_the_page_of_streams(airflow):
    with looking_at(airflow) as page:
        page.goto(f"{airflow.url}/dags/{WHOLE}")
        page.get_by_label("Graph").first.click()
        # the graph appears piece by piece
        for task in ("extract_load", "dbt_run", "dbt_test"):
            page.get_by_text(task).first.wait_for()
        page.wait_for_timeout(2000)
        page.screenshot(path=SCREENSHOTS / "airflow-graph.png")
        page.goto(airflow.url)
        page.get_by_text("Streams").first.click()
        streams = page.frame_locator("iframe")
        streams.get_by_text("public-order_items").first.wait_for()
        page.wait_for_timeout(1000)
        page.screenshot(path=SCREENSHOTS / "airflow-streams.png")
        for table in TABLES:
            assert streams.get_by_text(f"public-{table}").first.is_visible()


def test_secrets_are_in_no_page_no_log_and_no_file_but_their_own(airflow, receiver):
    root = airflow.checkout.root
    secrets = {**leaks.secrets(root), "TIDEMARK_ALERTS_WEBHOOK_URL": receiver.url}
    assert len(secrets) == 12
    run = airflow.get(f"/dags/{WHOLE}/dagRuns", state="success")["dag_runs"][-1]["dag_run_id"]
    named = {"dag_id": WHOLE, "dag_run_id": run, "task_id": "extract_load", "try_number": 1, "map_index": -1}
    described = airflow.session.get(f"{airflow.url}/openapi.json", timeout=30).json()["paths"]
    # one of the paths for login and logout would end this session
    paths = [path for path, methods in described.items() if "get" in methods and "/auth/" not in path]
    pages = [re.sub(r"{(\w+)}", lambda name: str(named.get(name[1], 1)), path) for path in paths]
    answers = {}
    for page in (*pages, "/", "/streams", "/ui/config", "/ui/dags", f"/ui/grid/runs/{WHOLE}"):
        # the responses with logs never end
        with airflow.session.get(airflow.url + page, timeout=30, stream=True) as answer:
            answers[page] = answer.status_code
            assert leaks.in_text(secrets, answer.raw.read(5_000_000, decode_content=True).decode()) == [], page
    assert answers[f"/api/v2/dagSources/{WHOLE}"] == 200
    assert answers[f"/api/v2/dags/{WHOLE}/dagRuns/{run}/taskInstances/extract_load/logs/1"] == 200
    # all settings on a page
    assert answers["/api/v2/config"] == 403
    # `make airflow` prints the login; Airflow reads it from a separate file
    assert set(leaks.in_text(secrets, airflow.said)) == {"AIRFLOW_ADMIN_PASSWORD"}
    kept = ".tidemark/airflow/passwords.json"
    assert leaks.in_files(secrets, root, ("logs", ".meltano", ".tidemark")) == [f"AIRFLOW_ADMIN_PASSWORD in {kept}"]
    assert (root / kept).stat().st_mode & 0o777 == 0o600
