"""One message per failed run: from the scheduler's own decision, and the callbacks of tasks and the DAG processor."""

from __future__ import annotations

import asyncio
import os
import selectors
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import uuid4

import pytest
import structlog
from airflow.callbacks.callback_requests import TaskCallbackRequest
from airflow.dag_processing.bundles.manager import DagBundlesManager
from airflow.dag_processing.dagbag import BundleDagBag, sync_bag_to_db
from airflow.dag_processing.processor import DagFileProcessorProcess, in_process_api_server
from airflow.executors.local_executor import LocalExecutor
from airflow.jobs.job import Job
from airflow.jobs.scheduler_job_runner import SchedulerJobRunner
from airflow.models.dagrun import DagRun
from airflow.models.serialized_dag import SerializedDagModel
from airflow.sdk.api.client import Client
from airflow.sdk.definitions.dag import _run_task
from airflow.utils.db import initdb
from airflow.utils.session import create_session
from airflow.utils.types import DagRunTriggeredByType, DagRunType

from tidemark_airflow.alerts import callbacks
from tidemark_airflow.run_ids import run_id_of

DAGS = Path(__file__).parent / "dags"
FILE = DAGS / "failing.py"


class Airflow:
    """The three processes that handle a failed run, run one after the other with their own code."""

    def __init__(self):
        initdb()
        DagBundlesManager().sync_bundles_to_db()
        self.bag = BundleDagBag(dag_folder=FILE, bundle_path=DAGS, bundle_name="dags-folder")
        assert not self.bag.import_errors
        sync_bag_to_db(self.bag, "dags-folder", None)
        self.scheduler = SchedulerJobRunner(job=Job(), executors=[LocalExecutor()])
        # as the manager of DAG processors creates it
        self.client = Client(base_url=None, token="", dry_run=True, transport=in_process_api_server().transport)
        self.client.base_url = "http://in-process.invalid./"

    def run(self, name, *, ended=None, started=None):
        """Run a DAG to its end; `ended` is the state in which the scheduler finds tasks that reported nothing."""
        dag = self.bag.dags[name]
        now = datetime.now(UTC)
        run_id = f"manual__{now.isoformat()}"
        with create_session() as session:
            SerializedDagModel.get(name, session=session).dag.create_dagrun(
                run_id=run_id,
                run_after=now,
                run_type=DagRunType.MANUAL,
                triggered_by=DagRunTriggeredByType.TEST,
                state="running",
                start_date=started or now,
                session=session,
            )
        requests = []
        while True:
            with create_session() as session:
                run = session.query(DagRun).filter_by(dag_id=name, run_id=run_id).one()
                request = self.scheduler._schedule_dag_run(run, session)
                waiting = [one for one in run.get_task_instances(session=session) if one.state == "scheduled"]
            if request:
                break
            for instance in waiting:
                instance.try_number += 1
                if ended:
                    instance.set_state(ended)
                    requests.append(self.killed(instance))
                else:
                    _run_task(ti=instance, task=dag.get_task(instance.task_id))
        self.process([*requests, request])
        return run_id

    @staticmethod
    def killed(instance):
        return TaskCallbackRequest(
            filepath=FILE.name, bundle_name="dags-folder", bundle_version=None, ti=instance, task_callback_type="failed"
        )

    def process(self, requests):
        """Let the DAG processor's process call the callbacks."""
        selector = selectors.DefaultSelector()
        log = Path(os.environ["AIRFLOW_HOME"]) / "processor.log"
        process = DagFileProcessorProcess.start(
            id=uuid4(),
            path=FILE,
            bundle_path=DAGS,
            bundle_name="dags-folder",
            dag_file_rel_path=FILE.name,
            callbacks=requests,
            selector=selector,
            logger=structlog.get_logger(),
            logger_filehandle=log.open("ab"),
            client=self.client,
        )
        while not process.is_ready:
            for key, _ in selector.select(timeout=0.1):
                handle, close = key.data
                if not handle(key.fileobj):
                    close(key.fileobj)


@pytest.fixture(scope="module")
def airflow():
    return Airflow()


def facts(body):
    """Return the fields of Slack's blocks."""
    fields = next(block["fields"] for block in body["blocks"] if "fields" in block)
    return dict(field["text"].removeprefix("*").split("*\n") for field in fields)


def test_a_run_with_a_failed_task_is_reported_once_with_the_tasks_error(airflow, webhook):
    run = airflow.run("fails")
    (body,) = webhook.bodies
    lines = body["text"].splitlines()
    assert lines[:3] == [
        "fails failed in extract_load (source_unreachable)",
        "Cannot connect to &lt;source&gt; &amp; co",
        "schema changed: public-orders: note text was added",
    ]
    said = facts(body)
    assert said["Task"] == "extract_load, try 1 of 1"
    assert (said["Owner"], said["Code"]) == ("data team", "source_unreachable")
    assert (said["Airflow's run"], said["Run id in all logs"]) == (run, run_id_of("fails", run))


def test_what_alertmanager_reports_is_not_sent_by_airflow_too(airflow, webhook, monkeypatch):
    monkeypatch.setenv("TIDEMARK_ALERTS_BY", "alertmanager")
    for name in ("stream_fails", "test_fails"):
        airflow.run(name)
    assert not webhook.bodies


def test_what_no_rule_sees_is_sent_by_airflow_always(airflow, webhook, monkeypatch):
    monkeypatch.setenv("TIDEMARK_ALERTS_BY", "alertmanager")
    names = ("fails", "freshness_fails", "stream_and_backup_fail", "breaks")
    for name in names:
        airflow.run(name)
    late("running")
    said = [body["text"].split()[0] for body in webhook.bodies]
    assert said == [*names, "hourly-sync"]


def test_a_run_that_failed_after_a_retry_is_reported_once(airflow, webhook):
    airflow.run("is_retried")
    (body,) = webhook.bodies
    assert facts(body)["Task"] == "extract_load, try 2 of 2"


def test_a_retry_is_reported_if_the_settings_ask_for_it(airflow, webhook, monkeypatch):
    monkeypatch.setenv("TIDEMARK_ALERTS_ON_RETRY", "true")
    airflow.run("is_retried")
    first, last = webhook.bodies
    assert "is_retried failed and is retried in extract_load (source_unreachable)\nCannot connect\n" in first["text"]
    assert first["text"].endswith("docs/runbook.md#retry")
    assert facts(first)["Task"] == "extract_load, try 1 of 2"
    assert last["text"].endswith("docs/runbook.md#source_unreachable")


def test_a_failure_that_no_retry_can_fix_is_reported_at_once(airflow, webhook):
    airflow.run("cannot_pass")
    (body,) = webhook.bodies
    assert "cannot_pass failed in extract_load (state_ahead)\nState is ahead\n" in body["text"]
    assert facts(body)["Task"] == "extract_load, try 1 of 4"


def test_a_run_with_several_failed_tasks_is_one_message_that_names_them_all(airflow, webhook):
    airflow.run("several_fail")
    (body,) = webhook.bodies
    assert "also failed:" in body["text"]
    assert all(f"reason {number}" in body["text"] for number in (1, 2, 3))


def test_a_run_in_which_one_shard_of_a_load_failed_says_which_and_why(airflow, webhook):
    airflow.run("a_shard_fails")
    (body,) = webhook.bodies
    assert body["text"].startswith("a_shard_fails failed in load_shard_1 (disk_full)\nThe disk is full")
    assert "/tasks/load_shard/mapped/1?try_number=1" in str(body)


def test_a_run_with_a_killed_task_is_reported_once(airflow, webhook):
    airflow.run("is_killed", ended="failed")
    (body,) = webhook.bodies
    assert body["text"].startswith("is_killed failed in never_ends (process_gone)\nits process ended without an error")


def test_a_run_that_exceeds_its_time_is_reported_once(airflow, webhook):
    airflow.run("out_of_time", started=datetime.now(UTC) - timedelta(hours=1))
    (body,) = webhook.bodies
    assert "(timeout)\nthe run did not end within 0:00:01\n" in body["text"]


def test_any_other_error_is_reported_in_one_line(airflow, webhook):
    airflow.run("breaks")
    (body,) = webhook.bodies
    assert "breaks failed in extract_load (unexpected)\nValueError: two lines\n" in body["text"]


def late(state):
    context = {
        "dag_run": {"dag_id": "hourly-sync", "dag_run_id": "scheduled__1", "state": state},
        "deadline": {"id": "1", "deadline_time": datetime(2026, 11, 24, 3, 45, tzinfo=UTC)},
    }
    asyncio.run(callbacks.deadline_missed(context=context, owner="data team"))


def test_a_missed_deadline_is_reported(webhook):
    late("running")
    (body,) = webhook.bodies
    said = (
        "hourly-sync missed its deadline (deadline)\nit should have ended by 2026-11-24 03:45:00 UTC and is running\n"
    )
    assert body["text"].startswith(said)


def test_a_run_that_failed_before_its_deadline_is_not_reported_again(webhook):
    late("failed")
    assert not webhook.bodies
