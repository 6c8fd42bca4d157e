"""Airflow, started once for all tests on one machine, on a project whose schedules are started by hand."""

from __future__ import annotations

import re
import subprocess
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest
from xdist.scheduler import LoadScopeScheduling

from tests.airflow.alerts import Receiver, receiving
from tests.airflow.server import Airflow
from tests.conftest import REPOSITORY
from tests.integration.stages import make_checkout
from tests.ports import free_port

if TYPE_CHECKING:
    from collections.abc import Iterator

# besides the project's own: only the models, only a load, and a load with 24 s, three times what it takes
JOB = """
  - name: build
    tasks:
      - dbt-postgres:run
"""
SCHEDULES = """
  - name: models
    job: build
    interval: "@manual"
  - name: load
    job: sync
    interval: "@manual"
  - name: hurried-load
    job: sync
    interval: "@manual"
    env: {TIDEMARK_DAG_TASK_TIMEOUT_MINUTES: "0.4"}
"""
# further lines of dbt_project.yml: `make test` runs all tests of the shop
FEW_TESTS = """
  shop:
    staging: {+enabled: false}
    marts: {+enabled: false}
unit_tests:
  shop: {+enabled: false}
"""

ONE_AIRFLOW = ("test_airflow.py", "test_sources.py", "test_stop.py")


class _ByAirflow(LoadScopeScheduling):  # type: ignore[misc]
    """Lets one process run all tests that share an Airflow."""

    def _split_scope(self, nodeid: str) -> str:
        file = nodeid.partition("::")[0]
        return "one machine" if file.endswith(ONE_AIRFLOW) else file


@pytest.hookimpl
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> _ByAirflow:
    return _ByAirflow(config, log)


@pytest.fixture(scope="session")
def receiver() -> Iterator[Receiver]:
    with receiving() as found:
        yield found


@contextmanager
def project(receiver: Receiver) -> Iterator[Airflow]:
    """Make a project with a loaded shop; Airflow is not started yet."""
    with contextmanager(make_checkout)(stage="up") as checkout:
        jobs = checkout.root / "orchestrate" / "jobs.meltano.yml"
        by_hand = re.sub(r'interval: ".*"', 'interval: "@manual"', jobs.read_text())
        jobs.write_text(by_hand.replace("schedules:", f"{JOB}schedules:") + SCHEDULES)
        port = free_port()
        checkout.env |= {
            "AIRFLOW__API__PORT": str(port),
            "AIRFLOW_POSTGRES_PORT": str(free_port()),
            "TIDEMARK_ALERTS_WEBHOOK_URL": receiver.url,
            "TIDEMARK_DAG_RETRIES": "1",
            "TIDEMARK_DAG_RETRY_DELAY_SECONDS": "1",
        }
        checkout.tidemark("demo", "load", "--scale", "0.002")
        yield Airflow(checkout, f"http://127.0.0.1:{port}")


@pytest.fixture(scope="session")
def metrics() -> Iterator[str]:
    """Receive Airflow's metrics; yield the page that shows them."""
    python = REPOSITORY / ".meltano" / "utilities" / "airflow" / "venv" / "bin" / "python"
    port = free_port()
    receiver = subprocess.Popen([python, REPOSITORY / "tests" / "airflow" / "otlp.py", "127.0.0.1", str(port)])
    yield f"http://127.0.0.1:{port}/metrics"
    receiver.terminate()
    receiver.wait()


@pytest.fixture(scope="session")
def airflow(receiver: Receiver, metrics: str) -> Iterator[Airflow]:
    with project(receiver) as found:
        found.checkout.env |= {
            "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT": metrics,
            # every 2 s, shorter than a task
            "OTEL_METRIC_EXPORT_INTERVAL": "2000",
            # so that it looks at the DAGs more often than every minute
            "AIRFLOW__DAG_PROCESSOR__MIN_FILE_PROCESS_INTERVAL": "10",
        }
        with (found.checkout.root / "transform" / "dbt_project.yml").open("a") as file:
            file.write(FEW_TESTS)
        found.start()
        try:
            yield found
        finally:
            found.stop()
