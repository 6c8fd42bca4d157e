"""Reads the context that Airflow passes to its callbacks. It differs with the process that calls.

A task's own process calls when the task ended by itself, with the exception (task_runner.py in
airflow/sdk/execution_time). The DAG processor calls when the process was killed or the whole run failed, without one
(processor.py in airflow/dag_processing). The triggerer calls when a deadline was missed, with JSON
(airflow/models/deadline.py).
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from airflow.sdk.exceptions import AirflowTaskTimeout

from tidemark_airflow.alerts import codes
from tidemark_airflow.alerts.message import Alert, one_line
from tidemark_airflow.failures import RunFailed
from tidemark_airflow.run_ids import run_id_of
from tidemark_airflow.run_pages import run_page

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

# the XCom key of a task's error, for the run's alert; Airflow deletes it when it retries the task
FAILURE = "failure"
_FAILED = "failed"
_OF_NODES = {"models_failed", "tests_failed"}
# other failures after streams were loaded: the warehouse has no record of them
_UNRECORDED = {"dbt_project_invalid", "process_gone", "run_busy", "source_stale", "unexpected"}
_NO_WORD = (
    "its process ended without an error: it was killed, its machine went away, or someone marked the task as failed"
)
# Airflow's reasons for a failed run without a failed task (airflow/models/dagrun.py)
_REASONS = {
    "all_tasks_deadlocked": "none of the remaining tasks can run",
    "task_failure": "a task failed that is no longer in the DAG",
}


def failure(context: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return a task's error as JSON; None if there is no exception."""
    error = context.get("exception")
    if not isinstance(error, BaseException):
        return None
    task = context["ti"]
    found: dict[str, Any] = {"at": datetime.now(UTC).isoformat(), "attempt": _attempt(task), "more": []}
    match error:
        case RunFailed():
            found |= {"code": error.code, "reason": error.reason, "rules_see": _rules_see(error)}
            found["more"] = [f"schema changed: {change}" for change in error.report.get("schema_changes", ())]
        case AirflowTaskTimeout():
            found |= {
                "code": codes.TIMEOUT.code,
                "reason": f"it did not end within {context['task'].execution_timeout}",
            }
        case _:
            found |= {"code": "unexpected", "reason": f"{type(error).__name__}: {error}"}
    return found | {"reason": one_line(found["reason"])}


def _rules_see(error: RunFailed) -> bool:
    """Return whether the warehouse has a record of this failure, which the rules see."""
    report = error.report
    if error.code in _OF_NODES:
        return bool(report.get("nodes", {}).get("failed"))
    # without an as_of, the warehouse did not answer
    return bool(report.get("streams") and report.get("as_of")) and error.code not in _UNRECORDED


def retried(context: Mapping[str, Any], runbook: str) -> Alert:
    """Return the alert for a failed task that is retried."""
    task = context["ti"]
    found = failure(context) or {"code": "process_gone", "reason": _NO_WORD, "attempt": _attempt(task)}
    return _alert(
        runbook,
        owner=context["task"].owner,
        dag=task.dag_id,
        run=task.run_id,
        level="warning",
        event="failed and is retried",
        section="retry",
        task=task.task_id,
        **found,
    )


def failed(context: Mapping[str, Any], runbook: str) -> Alert:
    """Return the alert for a failed run, from the errors of its tasks, and from the state of tasks that left none."""
    dag, run, task = context["dag"], context["run_id"], context.get("ti")
    about = {"owner": dag.owner, "dag": dag.dag_id, "run": run, "level": "error", "event": _FAILED}
    found = _failures(dag.dag_id, run, task) if task else []
    others = [f"also failed: {one['task']} ({one['code']}): {one['reason']}" for one in found]
    if context["reason"] == "timed_out":
        # Airflow set running tasks to skipped, and does not call their callbacks
        reason = f"the run did not end within {dag.dagrun_timeout}"
        unfinished = task.task_id if task else None
        return _alert(runbook, **about, code=codes.TIMEOUT.code, reason=reason, task=unfinished, more=others)
    if not found:
        reason = _REASONS.get(context["reason"], context["reason"])
        return _alert(runbook, **about, code="unexpected", reason=reason)
    first = found[0]
    rules_see = all(one.get("rules_see", False) for one in found)
    more = [*first.get("more", ()), *others[1:]]
    return _alert(runbook, **about, **{**first, "more": more, "rules_see": rules_see})


def late(context: Mapping[str, Any], owner: str, runbook: str) -> Alert | None:
    """Return the alert for a run that missed its deadline; None if it failed before, because that was reported then."""
    run = context["dag_run"]
    # Airflow deletes the deadlines of successful runs, but not of failed ones
    if run["state"] == _FAILED:
        return None
    # a datetime or its text, depending on the way it took
    deadline = str(context["deadline"]["deadline_time"])
    due = datetime.fromisoformat(deadline).astimezone(UTC)
    return _alert(
        runbook,
        owner=owner,
        dag=run["dag_id"],
        run=run["dag_run_id"],
        level="error",
        event="missed its deadline",
        code=codes.DEADLINE.code,
        reason=f"it should have ended by {due:%Y-%m-%d %H:%M:%S} UTC and is {run['state']}",
    )


def changed(context: Mapping[str, Any], changes: Iterable[str], runbook: str) -> Alert:
    """Return the alert for a successful run that found changed tables in the source."""
    task = context["ti"]
    first, *more = changes
    return _alert(
        runbook,
        owner=context["task"].owner,
        dag=task.dag_id,
        run=task.run_id,
        level="warning",
        event="found tables that changed their shape",
        code=codes.SCHEMA_CHANGED.code,
        section=codes.SCHEMA_CHANGED.section,
        reason=first,
        more=more,
        task=task.task_id,
        attempt=_attempt(task),
    )


def _failures(dag: str, run: str, task: Any) -> list[dict[str, Any]]:
    """Return what each failed task left, in the order of failure; tasks that left nothing come last."""
    states = task.get_task_states(dag_id=dag, run_ids=[run]).get(run, {})
    found = []
    for name in (name for name, state in states.items() if state == _FAILED):
        left, path = _left(task, name, dag, run)
        if not isinstance(left, dict):
            attempt = _attempt(task) if name == task.task_id else None
            left = {"code": "process_gone", "reason": _NO_WORD, "attempt": attempt}
        found.append({"task": name, "path": path, **left})
    return sorted(found, key=lambda one: one.get("at", "~"))


def _left(task: Any, name: str, dag: str, run: str) -> tuple[Any, str]:
    """Return what a failed task left, and the end of its page's address. A run of a mapped task has a number."""
    left = task.xcom_pull(task_ids=name, key=FAILURE, dag_id=dag, run_id=run)
    base, _, number = name.rpartition("_")
    if not isinstance(left, dict) and base and number.isdigit():
        of_run = task.xcom_pull(task_ids=base, key=FAILURE, dag_id=dag, run_id=run, map_indexes=int(number))
        if isinstance(of_run, dict):
            return of_run, f"{quote(base)}/mapped/{number}"
    return left, quote(name)


def _alert(runbook: str, **known: Any) -> Alert:
    """Return an alert with its links and time; `known` has the other fields of Alert."""
    dag, run, task, attempt = known["dag"], known["run"], known.get("task"), known.get("attempt")
    run_url = run_page(dag, run)
    query = f"?try_number={attempt.split()[0]}" if attempt else ""
    at, section = known.get("at"), known.pop("section", known["code"])
    path = known.pop("path", quote(task) if task else "")
    about = {
        "run_id": run_id_of(dag, run),
        "run_url": run_url,
        "log_url": f"{run_url}/tasks/{path}{query}" if task else None,
        "runbook": f"{runbook}#{section}",
        "at": datetime.fromisoformat(at) if at else datetime.now(UTC),
        "more": tuple(known.get("more", ())),
    }
    return Alert(**{**known, **about})


def _attempt(task: Any) -> str:
    return f"{task.try_number} of {max(task.max_tries + 1, task.try_number)}"
