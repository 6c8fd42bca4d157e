"""The end of the Airflow that the other tests on one machine have used."""

from __future__ import annotations

import psutil
import pytest

from tests.airflow.server import until
from tests.airflow.test_airflow import LOAD, locked

pytestmark = [pytest.mark.airflow, pytest.mark.timeout(600)]


def test_sigterm_leaves_no_process_behind(airflow):
    airflow.unpause(LOAD)
    assert airflow.process
    everyone = [airflow.component("scheduler"), *psutil.Process(airflow.process.pid).children(recursive=True)]
    # with a task that is running
    with locked(airflow, "raw.orders"), airflow.tasks_as_installed():
        airflow.trigger(LOAD)
        until(lambda: [each for each in airflow.processes() if "target-postgres" in each], "the target runs")
        everyone += psutil.Process(airflow.process.pid).children(recursive=True)
        airflow.process.terminate()
        airflow.process.wait(timeout=90)
    own = [each for each in everyone if each.is_running() and not each.name().startswith("postgres")]
    assert own == []
    assert airflow.processes() == []
    # source and warehouse keep running, as after any command; the server of Airflow's metadata stops
    servers = airflow.checkout.root / ".tidemark" / "postgres"
    assert [path.parents[1].name for path in sorted(servers.glob("*/data/postmaster.pid"))] == ["source", "warehouse"]
