"""Airflow's own metadata through a transaction pool, with logins for several people."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest

from tests.airflow.conftest import project
from tests.integration import pgbouncer

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.airflow.alerts import Receiver
    from tests.airflow.server import Airflow

pytestmark = [pytest.mark.airflow, pytest.mark.timeout(600), pgbouncer.wanted]
_POOLED = "select count(*) <= 5 from pg_stat_activity where datname = 'airflow'"


@pytest.fixture
def airflow(receiver: Receiver) -> Iterator[Airflow]:
    with ExitStack() as stack:
        found = stack.enter_context(project(receiver))
        checkout = found.checkout
        with checkout.connect("warehouse", "postgres") as connection:
            connection.execute("create database airflow owner tidemark_loader")
        port = stack.enter_context(pgbouncer.pooling(checkout, "transaction", size=5))
        login = f"tidemark_loader:{pgbouncer.password(checkout, 'tidemark_loader')}"
        checkout.env |= {
            "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"postgresql+psycopg2://{login}@127.0.0.1:{port}/airflow",
            "AIRFLOW__CORE__AUTH_MANAGER": "airflow.providers.fab.auth_manager.fab_auth_manager.FabAuthManager",
        }
        found.start()
        stack.callback(lambda: (found.process.terminate(), found.process.wait(timeout=90)))
        yield found


def test_airflow_runs_on_metadata_behind_a_pool_of_transactions_and_the_administrator_logs_in(airflow):
    assert f"user admin, password {airflow.password}" in airflow.said
    airflow.unpause("load")
    airflow.run("load")
    # all of Airflow's connections share the pool's sessions
    assert airflow.checkout.rows("warehouse", _POOLED) == [(True,)]
    # nothing of Airflow's outlives its transaction
    assert airflow.checkout.rows("warehouse", "select * from pg_locks where locktype = 'advisory'") == []
    airflow.log_in()
    airflow.session.headers["Authorization"] = ""
    wrong = airflow.session.post(
        f"{airflow.url}/auth/token", json={"username": "admin", "password": "guess"}, timeout=30
    )
    assert wrong.status_code == 401
