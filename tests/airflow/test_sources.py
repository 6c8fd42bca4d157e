"""A second source, added exactly as docs/how-to/tables.md says while Airflow runs, and what its failure stops."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests import second_source
from tests.airflow.conftest import project
from tests.airflow.server import until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.airflow.server import Airflow

pytestmark = [pytest.mark.airflow, pytest.mark.timeout(600)]
WHOLE, RECONCILE = "hourly-sync-and-transform", "nightly-reconcile"
ON_CRM = {f"{task}_crm{more}" for task in ("dbt_run", "dbt_test") for more in ("", "_and_postgres")}
OTHERS = {"extract_load_postgres", "dbt_run_postgres", "dbt_test_postgres"}


@pytest.fixture(scope="module")
def airflow(receiver) -> Iterator[Airflow]:
    with project(receiver) as found, second_source.database(found.checkout):
        # so that it looks at the DAGs more often than every minute
        found.checkout.env |= {"AIRFLOW__DAG_PROCESSOR__MIN_FILE_PROCESS_INTERVAL": "10"}
        found.start()
        try:
            found.checkout.tidemark(*second_source.command())
            second_source.select_streams(found.checkout.root)
            second_source.add_models(found.checkout.root)
            found.unpause(WHOLE)
            until(lambda: "extract_load_crm" in names(found), "the new source's task", seconds=60)
            yield found
        finally:
            found.stop()


def names(airflow: Airflow) -> set[str]:
    return {task["task_id"] for task in airflow.get(f"/dags/{WHOLE}/tasks")["tasks"]}


def test_the_sources_are_loaded_side_by_side_and_all_models_are_built_and_tested(airflow, receiver):
    run = airflow.run(WHOLE)
    assert airflow.tasks(WHOLE, run) == dict.fromkeys({*OTHERS, "extract_load_crm", *ON_CRM}, ("success", 1))
    times = {
        task["task_id"]: (task["start_date"], task["end_date"])
        for task in airflow.get(f"/dags/{WHOLE}/dagRuns/{run}/taskInstances")["task_instances"]
    }
    loads = times["extract_load_postgres"], times["extract_load_crm"]
    assert max(start for start, _ in loads) < min(end for _, end in loads)
    assert airflow.checkout.rows("warehouse", "select count(*) from raw_crm.contacts") == [(10,)]
    assert airflow.checkout.rows("warehouse", "select count(*) from intermediate.int_contact_customers") == [(10,)]
    # no model was built twice
    for part, model in (("crm", second_source.ON_CRM), ("crm_and_postgres", second_source.ON_BOTH)):
        logs = {task: str(airflow.log(WHOLE, run, task)) for task in times if task.startswith("dbt_run")}
        assert [task for task, log in logs.items() if f".{model}" in log] == [f"dbt_run_{part}"]
    parts = {event["extra"].get("part") for event in airflow.events("raw")}
    assert parts == {"postgres", "crm"}
    assert receiver.take() == []


def test_a_source_that_fails_stops_only_what_stands_on_it(airflow, receiver):
    airflow.checkout.tidemark("demo", "change", "--rows", "50", "--seed", "4")
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
    # it follows the run that Airflow starts of itself for the last night
    assert airflow.tasks(RECONCILE, airflow.run(RECONCILE)) == dict.fromkeys(
        ("reconcile_postgres", "reconcile_crm"), ("success", 1)
    )
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
