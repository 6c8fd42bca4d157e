"""Runs that fail, each in a different way."""

from __future__ import annotations

from datetime import timedelta

from airflow.sdk import DAG, task

from tidemark_airflow.alerts import callbacks
from tidemark_airflow.failures import PermanentFailure, RunFailed

ALERTS = {
    "owner": "data team",
    "on_failure_callback": callbacks.task_failed,
    "on_retry_callback": callbacks.task_retried,
}


LOADED = {"streams": {"public-orders": {"read": 1}}, "as_of": "2026-11-24T03:45:00+00:00"}


def dag(name, **options):
    return DAG(name, schedule=None, on_failure_callback=callbacks.run_failed, default_args=ALERTS, **options)


@task
def extract_load(error):
    raise error


@task
def load_shard(number):
    if number > 1:
        raise RunFailed("The disk is full", "disk_full", LOADED)


@task
def dbt_run():
    pass


@task
def never_ends():
    raise AssertionError("The tests kill it before it starts.")


with dag("fails"):
    report = {"schema_changes": ["public-orders: note text was added"]}
    extract_load(RunFailed("Cannot connect to <source> & co", "source_unreachable", report)) >> dbt_run()

with dag("stream_fails"):
    extract_load(RunFailed("The disk is full", "disk_full", LOADED))

with dag("test_fails"):
    extract_load(PermanentFailure("unique_orders failed", "tests_failed", {"nodes": {"passed": 3, "failed": 1}}))

with dag("freshness_fails"):
    extract_load(RunFailed("public-orders is stale", "source_stale", LOADED))

with dag("stream_and_backup_fail"):
    extract_load.override(task_id="load")(RunFailed("The disk is full", "disk_full", LOADED))
    extract_load.override(task_id="backup")(RunFailed("It can't be written", "backup_failed", {}))

with dag("is_retried"):
    again = extract_load.override(retries=1, retry_delay=timedelta(0))
    again(RunFailed("Cannot connect", "source_unreachable", {}))

with dag("cannot_pass"):
    extract_load.override(retries=3)(PermanentFailure("State is ahead", "state_ahead", {}))

with dag("several_fail"):
    for number in (1, 2, 3):
        extract_load.override(task_id=f"task_{number}")(RunFailed(f"reason {number}", "statement_failed", {}))

with dag("a_shard_fails"):
    load_shard.expand(number=[1, 2])

with dag("is_killed"):
    never_ends()

with dag("out_of_time", dagrun_timeout=timedelta(seconds=1)):
    never_ends()

with dag("breaks"):
    extract_load(ValueError("two\nlines"))
