"""The project's own DAGs, through Airflow's DagBag; no server and no database."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from airflow.dag_processing.dagbag import DagBag
from airflow.models.pool import Pool
from airflow.sdk import AssetAlias
from airflow.sdk.exceptions import ParamValidationError
from sqlalchemy import StaticPool, create_engine, select
from sqlalchemy.orm import sessionmaker

from tidemark_airflow import current_schedules, dags, prepare
from tidemark_airflow.schedules import Source, parse

ROOT = Path(__file__).resolve().parents[4]
FOLDER = ROOT / "orchestrate" / "dags"
EXPORT = current_schedules.read(ROOT)


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
        assert [task.arguments for task in tasks] == [["run", *step.options, *step.blocks] for step in schedule.steps]
        for task, step in zip(tasks, schedule.steps, strict=True):
            assert task.upstream_task_ids == set(step.after)


def test_a_load_of_several_shards_is_one_mapped_task_in_the_pool_of_its_source_and_one_event():
    source = {"name": "crm", "tap": "tap-crm", "target": "target-crm", "schema": "crm", "streams": [], "shown": []}
    load = {"name": "shared", "interval": "@daily", "shards": 3, "tasks": ["tap-crm target-crm", "dbt-postgres:run"]}
    shared = {"sources": [source], "schedules": [load]}
    (schedule,) = parse(json.dumps(shared)).schedules
    dag = dags.of_schedule(schedule)
    load, done, build = (dag.get_task(name) for name in ("extract_load_crm", "extract_load_crm_done", "dbt_run"))
    assert load.expand_input.value == {
        "arguments": [["run", f"--shard={number}/3", "tap-crm", "target-crm"] for number in (1, 2, 3)]
    }
    assert (load.pool, load.retries, load.outlets) == ("tidemark_source_crm", 3, [])
    assert [each.name for each in done.outlets] == ["raw moved"]
    # dbt waits for all of them
    assert (done.upstream_task_ids, build.upstream_task_ids) == ({"extract_load_crm"}, {"extract_load_crm_done"})


def test_what_reads_a_source_runs_beside_no_shard_of_its_load_whatever_slots_are_free():
    source = {"name": "crm", "tap": "tap-crm", "target": "target-crm", "schema": "crm", "streams": ["a"], "shown": []}
    sources = [source, {**source, "name": "erp", "tap": "tap-erp", "target": "target-erp"}]
    runs = {"four": ("tap-crm", 4), "two": ("tap-crm", 2), "one": ("tap-crm", 1), "other": ("tap-erp", 1)}
    loads = [
        {"name": name, "interval": "@daily", "shards": shards, "tasks": [f"{tap} {tap.replace('tap', 'target')}"]}
        for name, (tap, shards) in runs.items()
    ]
    compare = {"name": "compare", "interval": "@daily", "tasks": ["tidemark:reconcile", "dbt-postgres:run"]}
    export = parse(json.dumps({"sources": sources, "schedules": [*loads, compare]}))
    made = [*map(dags.of_schedule, export.schedules), dags.backfill(export.sources)]
    slots = {(dag.dag_id, task.task_id): task.pool_slots for dag in made for task in dag.tasks}
    more = {place: count for place, count in slots.items() if count > 1}
    assert more == {
        ("two", "extract_load_crm"): 2,
        ("one", "extract_load_crm"): 4,
        ("compare", "reconcile_crm"): 4,
        ("backfill", "extract_load_crm"): 4,
    }


def test_a_pool_gets_the_slots_that_its_tasks_take_and_keeps_those_that_somebody_set(monkeypatch):
    source = {"tap": "tap-crm", "target": "target-crm", "schema": "crm", "streams": ["a"], "shown": []}
    sources = [{**source, "name": name, "tap": f"tap-{name}"} for name in ("crm", "erp", "hr")]
    loads = [
        {"name": name, "interval": "@daily", "shards": shards, "tasks": [f"tap-{name} target-{name}"]}
        for name, shards in {"crm": 4, "erp": 2, "hr": 1}.items()
    ]
    export = parse(json.dumps({"sources": sources, "schedules": loads}))
    monkeypatch.setattr(prepare.current_schedules, "read", lambda _: export)
    engine = create_engine("sqlite://", poolclass=StaticPool)
    Pool.__table__.create(engine)
    monkeypatch.setattr(prepare, "create_session", sessionmaker(engine).begin)
    with prepare.create_session() as session:
        for name, slots in {"tidemark_source_crm": 2, "tidemark_source_erp": 9}.items():
            session.add(Pool(pool=name, slots=slots, include_deferred=False))
    monkeypatch.setenv("MELTANO_PROJECT_ROOT", str(ROOT))
    prepare.make_pools()
    with prepare.create_session() as session:
        made = {pool.pool: pool.slots for pool in session.scalars(select(Pool))}
    assert made == {
        "tidemark_source": 1,
        "tidemark_source_crm": 4,
        "tidemark_source_erp": 9,
        "tidemark_source_hr": 1,
        "tidemark_warehouse": 1,
    }


def test_schedules_are_asked_for_again_only_after_a_file_of_meltanos_changed(tmp_path, monkeypatch):
    shutil.copy(ROOT / "meltano.yml", tmp_path)
    for folder in ("extract", "load", "orchestrate", "transform"):
        (tmp_path / folder).mkdir()
        for file in (ROOT / folder).glob("*.meltano.yml"):
            shutil.copy(file, tmp_path / folder)
    (tmp_path / "plugins").symlink_to(ROOT / "plugins")
    (tmp_path / ".venv").symlink_to(ROOT / ".venv")
    monkeypatch.delenv("TIDEMARK_WORK_DIR", raising=False)
    first = current_schedules.read(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(current_schedules, "_ask", lambda _: pytest.fail("nothing changed"))
        assert current_schedules.read(tmp_path) == first
    jobs = tmp_path / "orchestrate" / "jobs.meltano.yml"
    jobs.write_text(jobs.read_text() + "  - {name: weekly, job: transform, interval: '@weekly'}\n")
    assert {each.name for each in current_schedules.read(tmp_path).schedules} == {
        "weekly",
        *(each.name for each in first.schedules),
    }
    jobs.write_text(jobs.read_text() + "  - {name: odd, job: no-such-job, interval: '@weekly'}\n")
    with pytest.raises(ValueError, match=r"error: .*no-such-job"):
        current_schedules.read(tmp_path)


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
    return parse(json.dumps({"schedules": [content], "sources": []})).schedules[0]


def test_a_schedules_env_reaches_its_tasks_and_overrides_the_common_settings():
    dag = dags.of_schedule(schedule(TIDEMARK_DAG_RETRIES="0", TIDEMARK_DAG_OWNER="ana", COLOUR="red"))
    (task,) = dag.tasks
    assert (task.retries, task.owner) == (0, "ana")
    assert task.env["COLOUR"] == "red"


def test_an_invalid_setting_is_named_with_its_value():
    with pytest.raises(ValueError, match=r"^TIDEMARK_DAG_RETRIES of s is 'many': .*; correct it in"):
        dags.of_schedule(schedule(TIDEMARK_DAG_RETRIES="many"))


SHOP = [Source("postgres", "tap-postgres", "raw", ("public-orders",))]
CRM = Source("crm", "tap-crm", "raw_crm", ("crm/public-contacts",))


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
    asked = dags.backfill(SHOP).params

    def ask():
        asked.update(params)
        asked.validate()

    with pytest.raises(ParamValidationError):
        ask()


def test_the_backfill_dag_runs_tidemark_backfill():
    load, build, test = dags.backfill(SHOP).topological_sort()
    ranged = {"streams": ["public-orders"], "from": "2026-01-01 00:00", "to": None, "full_refresh": False}
    assert load.arguments(ranged) == ["backfill", "--step=load", "--from=2026-01-01 00:00", "--", "public-orders"]
    everything = {"streams": ["a", "b"], "from": None, "to": None, "full_refresh": True}
    assert build.arguments(everything) == ["backfill", "--step=build", "--all", "--", "a", "b"]
    assert test.arguments(everything)[1] == "--step=test"


def test_a_backfill_of_several_sources_has_a_load_for_each_and_each_waits_in_its_own_pool():
    erp = replace(CRM, name="erp", retired=True)
    tasks = {task.task_id: task for task in dags.backfill([*SHOP, CRM, erp]).tasks}
    assert set(tasks) == {"extract_load_postgres", "extract_load_crm", "dbt_run", "dbt_test"}
    assert tasks["extract_load_crm"].pool == "tidemark_source_crm"
    # one source may have nothing to reload
    assert tasks["dbt_run"].trigger_rule == "none_failed_min_one_success"

    def named(task, *streams):
        arguments = tasks[task].arguments({"streams": list(streams), "from": None, "to": None, "full_refresh": True})
        return arguments and arguments[arguments.index("--") + 1 :]

    assert named("extract_load_crm", "crm/public-contacts", "postgres/public-orders") == ["crm/public-contacts"]
    assert named("extract_load_crm", "postgres/public-orders") == []
    # the command finds the source of a stream that names none, and refuses one that there is not
    for stream in ("postgres/public-orders", "public-orders", "crn/public-contacts"):
        assert named("extract_load_postgres", "crm/public-contacts", stream) == [stream]
    assert named("dbt_run", "crm/public-contacts", "public-orders") == ["crm/public-contacts", "public-orders"]


def test_sources_are_loaded_side_by_side_each_in_its_own_pool():
    tasks = ["tap-postgres target-postgres", "tap-crm target-crm", "dbt-postgres:run", "dbt-postgres:test"]
    content = {
        "schedules": [{"name": "s", "interval": "@daily", "env": {}, "tasks": tasks}],
        "sources": [
            {"name": name, "tap": f"tap-{name}", "schema": f"raw_{name}", "shown": []} for name in ("postgres", "crm")
        ],
    }
    dag = dags.of_schedule(parse(json.dumps(content)).schedules[0])
    loads = [dag.get_task("extract_load_postgres"), dag.get_task("extract_load_crm")]
    assert [(task.upstream_task_ids, task.pool) for task in loads] == [
        (set(), "tidemark_source"),
        (set(), "tidemark_source_crm"),
    ]
    assert [task.part for task in loads] == ["postgres", "crm"]
    build = dag.get_task("dbt_run_crm")
    assert build.arguments == ["run", "--part=crm", "--parts=crm,postgres,crm+postgres", "dbt-postgres:run"]
    assert build.upstream_task_ids == {"extract_load_crm"}


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
