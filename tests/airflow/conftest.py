"""Airflow, started once per test file, on a project whose schedules are started by hand."""

from __future__ import annotations

import subprocess
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from tests.airflow.alerts import Receiver, receiving
from tests.airflow.server import Airflow
from tests.conftest import REPOSITORY
from tests.integration.conftest import free_port, make_checkout

if TYPE_CHECKING:
    from collections.abc import Iterator

# besides the project's own schedules: only a load, only the models, and a load with 24 s, three times what it takes
SCHEDULES = """
  - name: models
    job: transform
    interval: "@manual"
  - name: load
    job: sync
    interval: "@manual"
  - name: hurried-load
    job: sync
    interval: "@manual"
    env: {TIDEMARK_DAG_TASK_TIMEOUT_MINUTES: "0.4"}
"""


@pytest.fixture(scope="module")
def receiver() -> Iterator[Receiver]:
    with receiving() as found:
        yield found


@contextmanager
def project(receiver: Receiver) -> Iterator[Airflow]:
    """Make a project with a loaded shop; Airflow is not started yet."""
    with contextmanager(make_checkout)() as checkout:
        jobs = checkout.root / "orchestrate" / "jobs.meltano.yml"
        jobs.write_text(jobs.read_text().replace('"@hourly"', '"@manual"') + SCHEDULES)
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


@pytest.fixture(scope="module")
def metrics() -> Iterator[str]:
    """Receive Airflow's metrics; yield the page that shows them."""
    python = REPOSITORY / ".meltano" / "utilities" / "airflow" / "venv" / "bin" / "python"
    port = free_port()
    receiver = subprocess.Popen([python, REPOSITORY / "tests" / "airflow" / "otlp.py", "127.0.0.1", str(port)])
    yield f"http://127.0.0.1:{port}/metrics"
    receiver.terminate()
    receiver.wait()


@pytest.fixture(scope="module")
def airflow(receiver: Receiver, metrics: str) -> Iterator[Airflow]:
    with project(receiver) as found:
        found.checkout.env |= {
            "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT": metrics,
            # every 2 s, shorter than a task
            "OTEL_METRIC_EXPORT_INTERVAL": "2000",
        }
        found.start()
        try:
            yield found
        finally:
            found.stop()
