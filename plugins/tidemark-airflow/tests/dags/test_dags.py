"""The project's own DAGs, through Airflow's DagBag; no server and no database."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from datetime import timedelta
from itertools import pairwise
from pathlib import Path

import pytest
from airflow.dag_processing.dagbag import DagBag
from airflow.sdk import AssetAlias
from airflow.sdk.exceptions import ParamValidationError

from tidemark_airflow import dags
from tidemark_airflow.schedules import parse

ROOT = Path(__file__).resolve().parents[4]
FOLDER = ROOT / "orchestrate" / "dags"
EXPORT = parse((ROOT / "orchestrate" / "schedules.json").read_text())


@pytest.fixture(scope="module")
def bag():
    found = DagBag(dag_folder=str(FOLDER), load_op_links=False)
    assert found.import_errors == {}
    return found


def test_each_schedule_is_a_dag_that_runs_its_tasks_in_order_and_backfill_is_there(bag):
    assert set(bag.dags) == {each.name for each in EXPORT.schedules} | {"backfill"}
    for schedule in EXPORT.schedules:
        tasks = bag.dags[schedule.name].topological_sort()
        assert [task.task_id for task in tasks] == [step.name for step in schedule.steps]
        assert [task.arguments for task in tasks] == [["run", *step.blocks] for step in schedule.steps]
        for before, after in pairwise(tasks):
            assert after.upstream_task_ids == {before.task_id}


def test_the_shops_schedule_loads_then_builds_then_tests_with_freshness(bag):
    dag = bag.dags["hourly-sync-and-transform"]
    assert [task.task_id for task in dag.topological_sort()] == ["extract_load", "dbt_run", "dbt_test"]
    assert dag.get_task("dbt_test").arguments[-1] == "dbt-postgres:freshness"


def test_a_dag_has_one_run_at_a_time_and_none_for_past_intervals(bag):
    for dag in bag.dags.values():
        assert (dag.max_active_runs, dag.catchup) == (1, False)


def test_tasks_are_retried_with_exponential_backoff_and_end_in_time(bag):
    for dag in bag.dags.values():
        for task in dag.tasks:
            assert task.retries == 3
            assert task.retry_exponential_backoff
            assert task.retry_delay < task.max_retry_delay
            assert task.execution_timeout == timedelta(hours=3)


def test_tasks_that_read_the_source_wait_for_each_other_and_so_do_builds(bag):
    pools = {task.task_id: task.pool for dag in bag.dags.values() for task in dag.tasks}
    assert pools == {
        "extract_load": "tidemark_source",
        "reconcile": "tidemark_source",
        "backup": "default_pool",
        "dbt_run": "tidemark_warehouse",
        "dbt_test": "tidemark_warehouse",
    }


def test_failures_retries_and_missed_deadlines_are_reported(bag):
    for dag in bag.dags.values():
        (deadline,) = dag.deadline if isinstance(dag.deadline, list) else [dag.deadline]
        assert deadline.interval == timedelta(hours=4)
        assert deadline.callback.path == "tidemark_airflow.alerts.callbacks.deadline_missed"
        assert dag.has_on_failure_callback or dag.on_failure_callback
        for task in dag.tasks:
            assert task.on_failure_callback
            assert task.on_retry_callback


def test_loads_write_events_for_raw_and_tests_write_events_for_marts(bag):
    tasks = {task.task_id: task for task in bag.dags["hourly-sync-and-transform"].tasks}
    outlets = {name: [each.name for each in task.outlets] for name, task in tasks.items()}
    assert outlets == {"extract_load": ["raw moved"], "dbt_run": [], "dbt_test": ["marts moved"]}
    # with an alias as an inlet, the alert of a failed run would never end
    assert not [each for task in tasks.values() for each in task.inlets if isinstance(each, AssetAlias)]


def test_dags_and_tasks_say_what_they_do(bag):
    for dag in bag.dags.values():
        assert dag.doc_md
        assert all(task.doc_md for task in dag.tasks)


def schedule(**env):
    content = {"name": "s", "interval": "@daily", "env": env, "tasks": ["tap-postgres target-postgres"]}
    return parse(json.dumps({"schedules": [content], "streams": []})).schedules[0]


def test_a_schedules_env_reaches_its_tasks_and_overrides_the_common_settings():
    dag = dags.of_schedule(schedule(TIDEMARK_DAG_RETRIES="0", TIDEMARK_DAG_OWNER="ana", COLOUR="red"))
    (task,) = dag.tasks
    assert (task.retries, task.owner) == (0, "ana")
    assert task.env["COLOUR"] == "red"


def test_an_invalid_setting_is_named_with_its_value():
    with pytest.raises(ValueError, match=r"^TIDEMARK_DAG_RETRIES of s is 'many': .*; correct it in"):
        dags.of_schedule(schedule(TIDEMARK_DAG_RETRIES="many"))


@pytest.mark.parametrize(
    "params",
    [
        {"streams": []},
        {"streams": "public-orders"},
        {"streams": ["public-orders", "public-orders"]},
        {"streams": ["--all"]},
        {"streams": ["public-orders"], "from": 1},
        {"streams": ["public-orders"], "full_refresh": "yes"},
    ],
    ids=["no stream", "no list", "one twice", "an option", "a number", "no boolean"],
)
def test_an_invalid_backfill_is_not_started(params):
    asked = dags.backfill(["public-orders"]).params

    def ask():
        asked.update(params)
        asked.validate()

    with pytest.raises(ParamValidationError):
        ask()


def test_the_backfill_dag_runs_tidemark_backfill():
    load, build, test = dags.backfill(["public-orders"]).topological_sort()
    ranged = {"streams": ["public-orders"], "from": "2026-01-01 00:00", "to": None, "full_refresh": False}
    assert load.arguments(ranged) == ["backfill", "--step=load", "--from=2026-01-01 00:00", "--", "public-orders"]
    everything = {"streams": ["a", "b"], "from": None, "to": None, "full_refresh": True}
    assert build.arguments(everything) == ["backfill", "--step=build", "--all", "--", "a", "b"]
    assert test.arguments(everything)[1] == "--step=test"


# Airflow parses the file again and again, and each time runs what is in it
WATCH = """
import sys, time
from airflow.sdk import DAG
from tidemark_airflow import dags, schedules
refused = ("subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "socket.connect", "socket.getaddrinfo",
           "sqlite3.connect")
def watch(event, arguments):
    if event in refused:
        raise AssertionError(f"{event} {arguments}")
def look():
    exec(compile(open(sys.argv[1]).read(), sys.argv[1], "exec"), {"__file__": sys.argv[1], "__name__": "dags"})
# what Airflow does when it is imported is its own affair
look()
sys.addaudithook(watch)
began = time.perf_counter()
look()
print(f"parsed in {1000 * (time.perf_counter() - began):.0f} ms")
"""


def test_parsing_the_dags_starts_no_process_and_asks_no_server():
    done = subprocess.run(
        [sys.executable, "-c", WATCH, str(FOLDER / "tidemark.py")],
        env=os.environ,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    sys.stdout.write(done.stdout)
