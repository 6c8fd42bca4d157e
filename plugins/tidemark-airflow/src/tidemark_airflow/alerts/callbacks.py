"""What Airflow calls: on the DAG's tasks, on the DAG, and when a deadline was missed.

One message a failed run, as it is told where Airflow itself decides that a run failed, which it does once: by the DAG's
callback, in the DAG processor. What a task failed of, its own callback leaves in an XCom on the way out, before Airflow
hears that it failed. So a task that was killed, several that failed, and a run out of time are no special cases: what
left nothing is told of by its state.
"""

from __future__ import annotations

import asyncio
import logging
from functools import wraps
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec

from tidemark_airflow.alerts import context as contexts
from tidemark_airflow.alerts import settings
from tidemark_airflow.alerts.channels import deliver

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

logger = logging.getLogger(__name__)
_P = ParamSpec("_P")


def _harmless(
    callback: Callable[Concatenate[Mapping[str, Any], _P], None],
) -> Callable[Concatenate[Mapping[str, Any], _P], None]:
    """Return one that logs its error in a line and raises none, as no run is to fail of an alert."""

    @wraps(callback)
    def call(context: Mapping[str, Any], /, *arguments: _P.args, **options: _P.kwargs) -> None:
        try:
            callback(context, *arguments, **options)
        except Exception as error:  # noqa: BLE001
            logger.error("An alert could not be made (%s): %s", call.__name__, error)  # noqa: TRY400

    return call


@_harmless
def task_failed(context: Mapping[str, Any]) -> None:
    """Leave what the task failed of for `run_failed`. `on_failure_callback` of tasks."""
    if found := contexts.failure(context):
        context["ti"].xcom_push(key=contexts.FAILURE, value=found)


@_harmless
def task_retried(context: Mapping[str, Any]) -> None:
    """Tell that a task is tried again, if the settings say so. `on_retry_callback` of tasks."""
    content = _content()
    if content.on_retry:
        deliver(contexts.retried(context, content.runbook_url))


@_harmless
def run_failed(context: Mapping[str, Any]) -> None:
    """Tell that a run failed. `on_failure_callback` of the DAG."""
    deliver(contexts.failed(context, _content().runbook_url))


@_harmless
def changed_shape(context: Mapping[str, Any], changes: Sequence[str]) -> None:
    """Tell that a run went well and its source changed its shape: `schema_changes` of the report. For operators."""
    if changes:
        deliver(contexts.changed(context, changes, _content().runbook_url))


async def deadline_missed(context: Mapping[str, Any], owner: str) -> None:
    """Tell that a run is late. For a DeadlineAlert, as in `AsyncCallback(deadline_missed, {"owner": "data team"})`."""
    # the triggerer has one loop for all: nothing may block it
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
