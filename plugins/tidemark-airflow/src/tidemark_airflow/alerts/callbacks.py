"""Airflow's callbacks: for the DAG's tasks, for the DAG, and for a missed deadline.

Each failed run leads to one message. The DAG's callback sends it from the DAG processor, once, when Airflow itself
decides that the run failed. A failing task's own callback writes its error to an XCom before Airflow learns of the
failure. So a killed task, several failed tasks, and a run that exceeded its time need no special cases: for a task that
left no error, the message has its state.

`TIDEMARK_ALERTS_BY=alertmanager` leaves to Alertmanager the failed runs that its rules see: failures of streams, models
and tests that the warehouse has a record of. Airflow always reports the others, such as a failed backup, a killed task
or a missed deadline, and retries and followed schema changes.
"""

from __future__ import annotations

import asyncio
import logging
from functools import wraps
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec

from tidemark_airflow.alerts import context as contexts
from tidemark_airflow.alerts import message, settings
from tidemark_airflow.alerts.channels import deliver

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

logger = logging.getLogger(__name__)
_P = ParamSpec("_P")


def _harmless(
    callback: Callable[Concatenate[Mapping[str, Any], _P], None],
) -> Callable[Concatenate[Mapping[str, Any], _P], None]:
    """Wrap a callback so that it logs its error in one line and raises nothing: an alert must not make a run fail."""

    @wraps(callback)
    def call(context: Mapping[str, Any], /, *arguments: _P.args, **options: _P.kwargs) -> None:
        try:
            callback(context, *arguments, **options)
        except Exception as error:  # noqa: BLE001
            logger.error("An alert could not be made (%s): %s", call.__name__, error)  # noqa: TRY400

    return call


@_harmless
def task_failed(context: Mapping[str, Any]) -> None:
    """Leave the task's error for `run_failed`. `on_failure_callback` of tasks."""
    if found := contexts.failure(context):
        context["ti"].xcom_push(key=contexts.FAILURE, value=found)


@_harmless
def task_retried(context: Mapping[str, Any]) -> None:
    """Report that a task is retried, if the settings ask for it. `on_retry_callback` of tasks."""
    content = _content()
    if content.on_retry:
        deliver(contexts.retried(context, content.runbook_url))


@_harmless
def run_failed(context: Mapping[str, Any]) -> None:
    """Report that a run failed. `on_failure_callback` of the DAG."""
    content = _content()
    alert = contexts.failed(context, content.runbook_url)
    if alert.rules_see and content.by == "alertmanager":
        logger.warning("Alertmanager reports this (%sBY=alertmanager): %s", settings.PREFIX, message.for_log(alert))
    else:
        deliver(alert)


@_harmless
def changed_shape(context: Mapping[str, Any], changes: Sequence[str]) -> None:
    """Report that a run succeeded and its source's tables changed: `schema_changes` of its report. For operators."""
    if changes:
        deliver(contexts.changed(context, changes, _content().runbook_url))


async def deadline_missed(context: Mapping[str, Any], owner: str) -> None:
    """Report that a run is late. For a DeadlineAlert: `AsyncCallback(deadline_missed, {"owner": "data team"})`."""
    # the triggerer has one event loop for all, so nothing may block it
    await asyncio.to_thread(_deadline_missed, context, owner)


@_harmless
def _deadline_missed(context: Mapping[str, Any], owner: str) -> None:
    if alert := contexts.late(context, owner, _content().runbook_url):
        deliver(alert)


def _content() -> settings.Content:
    try:
        return settings.read(settings.Content)
    except settings.SettingsError as error:
        logger.error("The settings of alerts are wrong: %s", error)  # noqa: TRY400
        return settings.Content.model_construct()
