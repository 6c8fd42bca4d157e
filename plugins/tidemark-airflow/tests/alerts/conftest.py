"""An Airflow only for these tests, without settings for alerts; receivers; and no waits between attempts."""

from __future__ import annotations

import os
import tempfile
from datetime import UTC, datetime
from pathlib import Path

import pytest

HOME = tempfile.TemporaryDirectory(prefix="tidemark-alerts-")
os.environ |= {
    # Airflow reads these at its first import
    "AIRFLOW_HOME": HOME.name,
    "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
    "AIRFLOW__CORE__DAGS_FOLDER": str(Path(__file__).parent / "dags"),
    "AIRFLOW__API__BASE_URL": "https://airflow.example.com",
}

from receivers import Mailbox, Webhook  # noqa: E402
from tidemark_airflow.alerts import channels  # noqa: E402
from tidemark_airflow.alerts.message import Alert  # noqa: E402


@pytest.fixture(autouse=True)
def waits(monkeypatch):
    """Send no alert unless a test asks for it, and never wait: returns the waits that there would have been."""
    for name in list(os.environ):
        if name.startswith("TIDEMARK_ALERTS_") or name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)
    found: list[float] = []
    monkeypatch.setattr(channels, "sleep", found.append)
    return found


@pytest.fixture
def webhook(monkeypatch):
    with Webhook() as server:
        monkeypatch.setenv("TIDEMARK_ALERTS_WEBHOOK_URL", server.url)
        yield server


@pytest.fixture
def set_mail(monkeypatch):
    """Point mail at a server, with further settings."""

    def set_(controller, **more):
        settings = {
            "email_to": "data@example.com, oncall@example.com",
            "email_from": "tidemark@example.com",
            "smtp_host": "127.0.0.1",
            "smtp_port": controller.port,
            "smtp_security": "none",
            **more,
        }
        for name, value in settings.items():
            monkeypatch.setenv(f"TIDEMARK_ALERTS_{name.upper()}", str(value))

    return set_


@pytest.fixture
def mailbox(set_mail):
    box = Mailbox()
    controller = box.controller()
    controller.start()
    set_mail(controller)
    yield box
    controller.stop()


@pytest.fixture
def alert():
    return Alert(
        level="error",
        event="failed",
        code="source_unreachable",
        reason="Cannot connect to the source database: <b>connection</b> refused & *lost*",
        dag="hourly-sync",
        run="scheduled__2026-11-24T03:00:00+00:00",
        run_id="5b0b8c5e-4b0f-5e0a-9a38-0e2a4b9a1f10",
        run_url="https://airflow.example.com/dags/hourly-sync/runs/scheduled__1?a=1&b=2",
        log_url="https://airflow.example.com/dags/hourly-sync/runs/scheduled__1/tasks/extract_load?try_number=3",
        runbook="https://example.com/runbook.md#source_unreachable",
        owner="data team",
        at=datetime(2026, 11, 24, 3, 17, 31, tzinfo=UTC),
        task="extract_load",
        attempt="3 of 3",
    )
