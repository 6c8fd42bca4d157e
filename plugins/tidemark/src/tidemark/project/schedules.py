"""Exports Meltano's schedules to a file, from which Airflow's DAGs are made without a call to Meltano."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from singer_postgres.core.errors import one_line
from tidemark.errors import UsageError
from tidemark.project import meltano_project
from tidemark.project.meltano_state import TAP

if TYPE_CHECKING:
    from tidemark.project.directory import Project


def export(project: Project) -> str:
    """Return the schedules with their jobs, and the selected streams, as JSON.

    Raises:
        UsageError: Meltano's files can't be read, or a schedule's job doesn't exist.
    """
    from meltano.core.error import MeltanoError  # noqa: PLC0415
    from meltano.core.schedule_service import ScheduleService  # noqa: PLC0415
    from meltano.core.task_sets_service import JobNotFoundError, TaskSetsService  # noqa: PLC0415

    meltano = meltano_project.find(project)
    tap, _ = meltano_project.plugin(meltano, TAP)
    try:
        jobs = TaskSetsService(meltano)
        schedules = [
            {"name": each.name, "interval": each.interval, "env": each.env, "tasks": _tasks(jobs, each)}
            for each in ScheduleService(meltano).schedules()
        ]
    except (MeltanoError, JobNotFoundError, ValueError) as error:
        raise UsageError(
            f"Meltano can't read its schedules: {one_line(error).rstrip('.')}; see orchestrate/."
        ) from error
    streams = sorted({pattern.rpartition(".")[0] for pattern in tap.extras.get("select", []) if pattern[0] != "!"})
    return json.dumps({"schedules": schedules, "streams": streams}, indent=2) + "\n"


def _tasks(jobs: Any, schedule: Any) -> list[str]:
    """Return the arguments of `meltano run`, one item per task."""
    if hasattr(schedule, "job"):
        return [" ".join(blocks) for blocks in jobs.get(schedule.job).flat_args_per_set]
    return [f"{schedule.extractor} {schedule.loader}"]
