"""A second source, added exactly as docs/how-to/tables.md says while Airflow runs, and what its failure stops.

The tests go on with the project of test_airflow.py, and depend on their order.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests import second_source
from tests.airflow.server import until
from tests.airflow.test_airflow import locked
from tests.integration.marts import assert_as_a_full_build_has_them

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.airflow.server import Airflow

pytestmark = [pytest.mark.airflow, pytest.mark.timeout(600)]
WHOLE, RECONCILE = "hourly-sync-and-transform", "nightly-reconcile"
ON_CRM = {f"{task}_crm{more}" for task in ("dbt_run", "dbt_test") for more in ("", "_and_postgres")}
OTHERS = {"extract_load_postgres", "dbt_run_postgres", "dbt_test_postgres"}


@pytest.fixture(scope="module", autouse=True)
def _second(airflow: Airflow) -> Iterator[None]:
    checkout = airflow.checkout
    with second_source.database(checkout):
        checkout.tidemark(*second_source.command())
        # the page's host is an example, and Airflow runs without the variables that the command had
        with (checkout.root / ".env").open("a") as file:
            file.writelines(f"{name}={value}\n" for name, value in checkout.env.items() if name.startswith("TAP_CRM"))
        second_source.select_streams(checkout.root)
        second_source.add_models(checkout.root)
        airflow.unpause(WHOLE)
        until(lambda: "extract_load_crm" in names(airflow), "the new source's task", seconds=60)
        yield


def names(airflow: Airflow) -> set[str]:
    return {task["task_id"] for task in airflow.get(f"/dags/{WHOLE}/tasks")["tasks"]}


def in_state(airflow: Airflow, run: str, *states: str) -> set[str]:
    return {task for task, (state, _) in airflow.tasks(WHOLE, run).items() if state in states}


def test_the_sources_are_loaded_side_by_side_and_all_models_are_built_and_tested(airflow, receiver):
    airflow.checkout.tidemark("demo", "change", "--rows", "50", "--seed", "4")
    before = len(airflow.events("raw"))
    loads = {"extract_load_postgres", "extract_load_crm"}
    with locked(airflow, "raw.orders"):
        run = airflow.trigger(WHOLE)
        until(lambda: in_state(airflow, run, "running", "success") >= loads, "both loads have begun")
        assert "extract_load_postgres" in in_state(airflow, run, "running")
    assert airflow.wait(WHOLE, run) == "success", airflow.logs(WHOLE, run)
    tasks = airflow.tasks(WHOLE, run)
    assert tasks == dict.fromkeys({*OTHERS, "extract_load_crm", *ON_CRM}, ("success", 1))
    assert airflow.checkout.rows("warehouse", "select count(*) from raw_crm.contacts") == [(10,)]
    assert airflow.checkout.rows("warehouse", "select count(*) from intermediate.int_contact_customers") == [(10,)]
    # no model was built twice
    for part, model in (("crm", second_source.ON_CRM), ("crm_and_postgres", second_source.ON_BOTH)):
        logs = {task: str(airflow.log(WHOLE, run, task)) for task in tasks if task.startswith("dbt_run")}
        assert [task for task, log in logs.items() if f".{model}" in log] == [f"dbt_run_{part}"]
    parts = {event["extra"].get("part") for event in airflow.events("raw")[before:]}
    assert parts == {"postgres", "crm"}
    assert receiver.take() == []


def test_what_airflow_built_equals_a_full_build(airflow):
    assert_as_a_full_build_has_them(airflow.checkout)


def test_a_source_that_fails_stops_only_what_stands_on_it(airflow, receiver):
    airflow.checkout.tidemark("demo", "change", "--rows", "50", "--seed", "5")
    with airflow.checkout.connect("source", "crm") as connection:
        connection.execute("insert into contacts values (11, 'while it failed', now())")
    with airflow.checkout.connect("source", "postgres") as connection:
        connection.execute("alter database crm allow_connections false")
        run = airflow.trigger(WHOLE)
        assert airflow.wait(WHOLE, run) == "failed"
        connection.execute("alter database crm allow_connections true")
    assert airflow.tasks(WHOLE, run) == {
        **dict.fromkeys(OTHERS, ("success", 1)),
        "extract_load_crm": ("failed", 2),
        **dict.fromkeys(ON_CRM, ("upstream_failed", 0)),
    }
    (alert,) = until(receiver.take, "an alert")
    assert "extract_load_crm" in alert["text"]
    done = airflow.checkout.run("tidemark", "reconcile", "--source", "postgres", "--repair", "--allow-deletes", "20%")
    assert done.returncode == 0, done.stdout + done.stderr
    # who clears the failed tasks repeats those of the failed source alone
    airflow.clear_failed(WHOLE, run)
    assert airflow.wait(WHOLE, run) == "success", airflow.logs(WHOLE, run)
    assert airflow.tasks(WHOLE, run) == {
        **dict.fromkeys(OTHERS, ("success", 1)),
        "extract_load_crm": ("success", 3),
        **dict.fromkeys(ON_CRM, ("success", 1)),
    }
    assert airflow.checkout.rows("warehouse", "select count(*) from staging.stg_crm_contacts") == [(11,)]
    assert receiver.take() == []


def test_a_source_that_fails_does_not_stop_the_comparison_of_another(airflow, receiver):
    airflow.unpause(RECONCILE)
    with airflow.checkout.connect("source", "postgres") as connection:
        connection.execute("alter database crm allow_connections false")
        run = airflow.trigger(RECONCILE)
        assert airflow.wait(RECONCILE, run) == "failed"
        connection.execute("alter database crm allow_connections true")
    assert airflow.tasks(RECONCILE, run) == {"reconcile_postgres": ("success", 1), "reconcile_crm": ("failed", 2)}
    (alert,) = until(receiver.take, "an alert")
    assert "reconcile_crm" in alert["text"]
    assert "public-orders" in str(airflow.log(RECONCILE, run, "reconcile_postgres"))
    assert "public-contacts" not in str(airflow.log(RECONCILE, run, "reconcile_postgres"))
    airflow.clear_failed(RECONCILE, run)
    assert airflow.wait(RECONCILE, run) == "success", airflow.logs(RECONCILE, run)
    assert airflow.tasks(RECONCILE, run) == {"reconcile_postgres": ("success", 1), "reconcile_crm": ("success", 3)}
    assert receiver.take() == []


def test_a_backfill_of_one_source_loads_that_one_alone(airflow, receiver):
    airflow.unpause("backfill")
    run = airflow.run("backfill", streams=["crm/public-contacts"], full_refresh=True)
    assert {task: state for task, (state, _) in airflow.tasks("backfill", run).items()} == {
        "extract_load_postgres": "skipped",
        "extract_load_crm": "success",
        "dbt_run": "success",
        "dbt_test": "success",
    }
    assert receiver.take() == []


def test_the_page_of_streams_names_the_sources(airflow):
    streams = airflow.session.get(f"{airflow.url}/tidemark/api/streams", timeout=30).json()["streams"]
    assert {(each["source"], each["stream"]) for each in streams} >= {
        ("crm", "public-contacts"),
        ("postgres", "public-orders"),
    }
