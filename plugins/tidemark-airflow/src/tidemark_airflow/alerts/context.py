"""Takes apart what Airflow calls its callbacks with, which differs with the process that calls.

Where it comes from: a task's own process when the task ended by itself (task_runner.py in airflow/sdk/execution_time,
with the exception); the DAG processor when the process was killed or the whole run failed (processor.py in
airflow/dag_processing, with none); the triggerer when a deadline was missed (airflow/models/deadline.py, with JSON).
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from airflow.sdk.configuration import conf
from airflow.sdk.exceptions import AirflowTaskTimeout

from tidemark_airflow.alerts.message import Alert, one_line
from tidemark_airflow.failures import RunFailed
from tidemark_airflow.run_ids import run_id_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

# under which a task leaves what it failed of, for whoever tells of the run; gone when the task is tried again
FAILURE = "failure"
_FAILED = "failed"
_NO_WORD = (
    "its process ended without a word: it was killed, its machine went away, or someone marked the task as failed"
)
# why Airflow says that a run failed, where no task did (airflow/models/dagrun.py)
_REASONS = {
    "all_tasks_deadlocked": "no task that is left can run",
    "task_failure": "a task failed that is no longer in the DAG",
}


def failure(context: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return what a task failed of, as JSON; None if there is no exception to say it."""
    error = context.get("exception")
    if not isinstance(error, BaseException):
        return None
    task = context["ti"]
    found: dict[str, Any] = {"at": datetime.now(UTC).isoformat(), "attempt": _attempt(task), "more": []}
    match error:
        case RunFailed():
            found |= {"kind": str(error.kind), "reason": error.reason}
            found["more"] = [f"changed shape: {change}" for change in error.report.get("schema_changes", ())]
        case AirflowTaskTimeout():
            found |= {"kind": "timeout", "reason": f"it did not end within {context['task'].execution_timeout}"}
        case _:
            found |= {"kind": "other", "reason": f"{type(error).__name__}: {error}"}
    return found | {"reason": one_line(found["reason"])}


def retried(context: Mapping[str, Any], runbook: str) -> Alert:
    """Return that a task failed and is tried again."""
    task = context["ti"]
    found = failure(context) or {"kind": "killed", "reason": _NO_WORD, "attempt": _attempt(task)}
    return _alert(
        runbook,
        owner=context["task"].owner,
        dag=task.dag_id,
        run=task.run_id,
        level="warning",
        event="failed and is tried again",
        section="retry",
        task=task.task_id,
        **found,
    )


def failed(context: Mapping[str, Any], runbook: str) -> Alert:
    """Return that a run failed: of what its tasks left, and of what the state of those that left nothing says."""
    dag, run, task = context["dag"], context["run_id"], context.get("ti")
    about = {"owner": dag.owner, "dag": dag.dag_id, "run": run, "level": "error", "event": _FAILED}
    found = _failures(dag.dag_id, run, task) if task else []
    others = [f"also failed: {one['task']} ({one['kind']}): {one['reason']}" for one in found]
    if context["reason"] == "timed_out":
        # Airflow has set what was running to skipped, and no task's own callback is called
        reason = f"the run did not end within {dag.dagrun_timeout}"
        unfinished = task.task_id if task else None
        return _alert(runbook, **about, kind="timeout", reason=reason, task=unfinished, more=others)
    if not found:
        reason = _REASONS.get(context["reason"], context["reason"])
        return _alert(runbook, **about, kind="other", reason=reason)
    first = found[0]
    return _alert(runbook, **about, **{**first, "more": [*first.get("more", ()), *others[1:]]})


def late(context: Mapping[str, Any], owner: str, runbook: str) -> Alert | None:
    """Return that a run is not done by its deadline; None if it failed before that, which was told then."""
    run = context["dag_run"]
    # Airflow forgets the deadlines of runs that went well, and no others
    if run["state"] == _FAILED:
        return None
    # the scheduler's own instant, or that as text, by the way it came
    deadline = str(context["deadline"]["deadline_time"])
    due = datetime.fromisoformat(deadline).astimezone(UTC)
    return _alert(
        runbook,
        owner=owner,
        dag=run["dag_id"],
        run=run["dag_run_id"],
        level="error",
        event="missed its deadline",
        kind="deadline",
        reason=f"it was to be done by {due:%Y-%m-%d %H:%M:%S} UTC and is {run['state']}",
    )


def changed(context: Mapping[str, Any], changes: Iterable[str], runbook: str) -> Alert:
    """Return that a run went well and its source's tables have another shape."""
    task = context["ti"]
    first, *more = changes
    return _alert(
        runbook,
        owner=context["task"].owner,
        dag=task.dag_id,
        run=task.run_id,
        level="warning",
        event="found tables that changed their shape",
        kind="shape",
        reason=first,
        more=more,
        task=task.task_id,
        attempt=_attempt(task),
    )


def _failures(dag: str, run: str, task: Any) -> list[dict[str, Any]]:
    """Return what each failed task left, the first to fail first, and last those that left nothing."""
    states = task.get_task_states(dag_id=dag, run_ids=[run]).get(run, {})
    found = []
    for name in (name for name, state in states.items() if state == _FAILED):
        left = task.xcom_pull(task_ids=name, key=FAILURE, dag_id=dag, run_id=run)
        if not isinstance(left, dict):
            attempt = _attempt(task) if name == task.task_id else None
            left = {"kind": "killed", "reason": _NO_WORD, "attempt": attempt}
        found.append({"task": name, **left})
    return sorted(found, key=lambda one: one.get("at", "~"))


def _alert(runbook: str, **known: Any) -> Alert:
    """Return it with its links and instant; `known` is what else Alert has."""
    dag, run, task, attempt = known["dag"], known["run"], known.get("task"), known.get("attempt")
    base = conf.get("api", "base_url", fallback="http://localhost:8080").rstrip("/")
    run_url = f"{base}/dags/{quote(dag)}/runs/{quote(run, safe='')}"
    query = f"?try_number={attempt.split()[0]}" if attempt else ""
    at, section = known.get("at"), known.pop("section", known["kind"])
    about = {
        "run_id": run_id_of(dag, run),
        "run_url": run_url,
        "log_url": f"{run_url}/tasks/{quote(task)}{query}" if task else None,
        "runbook": f"{runbook}#{section}",
        "at": datetime.fromisoformat(at) if at else datetime.now(UTC),
        "more": tuple(known.get("more", ())),
    }
    return Alert(**{**known, **about})


def _attempt(task: Any) -> str:
    return f"{task.try_number} of {max(task.max_tries + 1, task.try_number)}"
