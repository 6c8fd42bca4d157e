"""Moves the deadline of a run whose tasks are cleared, where Airflow can't.

Airflow 3.3 stores the interval of a deadline as JSON, and then reads it as a number: to clear a task of any DAG with a
deadline ends with status 500 (https://github.com/apache/airflow/issues/70368).
"""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

from airflow.models import taskinstance
from airflow.sdk.serde import deserialize
from sqlalchemy import false, select

if TYPE_CHECKING:
    from datetime import datetime

    from airflow.models.dagrun import DagRun
    from sqlalchemy.orm import Session

_move = taskinstance._recalculate_dagrun_queued_at_deadlines  # noqa: SLF001
_Alert, _Deadline = taskinstance.DeadlineAlertModel, taskinstance.Deadline
_KIND = taskinstance.ReferenceModels.REFERENCE_TYPE_FIELD
_QUEUED = taskinstance.ReferenceModels.DagRunQueuedAtDeadline.__name__


def repair() -> None:
    """Have Airflow move these deadlines."""
    taskinstance._recalculate_dagrun_queued_at_deadlines = _move_by_their_intervals  # noqa: SLF001


def _move_by_their_intervals(dagrun: DagRun, queued_at: datetime, session: Session) -> None:
    try:
        # once Airflow can do it, it does
        _move(dagrun, queued_at, session)
    except TypeError:
        query = select(_Deadline, _Alert).join(_Alert, _Deadline.deadline_alert_id == _Alert.id)
        mine = query.where(_Deadline.dagrun_id == dagrun.id, _Deadline.missed == false())
        for deadline, alert in session.execute(mine).all():
            interval = deserialize(alert.interval)
            if alert.reference.get(_KIND) == _QUEUED and isinstance(interval, timedelta):
                deadline.deadline_time = queued_at + interval
