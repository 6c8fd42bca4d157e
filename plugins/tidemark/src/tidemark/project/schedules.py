"""Exports Meltano's schedules to a file, from which Airflow's DAGs are made without a call to Meltano."""

from __future__ import annotations

import json
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from singer_postgres.core.errors import one_line
from tidemark.errors import UsageError
from tidemark.project import meltano_project, model_sources, resolved_settings, sources

if TYPE_CHECKING:
    from collections.abc import Iterator

    from meltano.core.plugin.project_plugin import ProjectPlugin
    from meltano.core.project import Project as MeltanoProject

    from tidemark.project.directory import Project
    from tidemark.project.sources import SourceDefinition

# what Airflow makes DAGs of
FILE = "orchestrate/schedules.json"
_SCHEMA = "default_target_schema"


def export(project: Project) -> str:
    """Return the schedules with their jobs, and each source with its schema and streams, as JSON.

    Raises:
        UsageError: Meltano's files can't be read, or a schedule's job doesn't exist.
    """
    from meltano.core.error import MeltanoError  # noqa: PLC0415
    from meltano.core.schedule_service import ScheduleService  # noqa: PLC0415
    from meltano.core.task_sets_service import JobNotFoundError, TaskSetsService  # noqa: PLC0415

    meltano = meltano_project.find(project)
    try:
        jobs = TaskSetsService(meltano)
        schedules = [
            {"name": each.name, "interval": each.interval, "env": each.env, "tasks": _job_tasks(jobs, each)}
            for each in ScheduleService(meltano).schedules()
        ]
    except (MeltanoError, JobNotFoundError, ValueError) as error:
        raise UsageError(
            f"Meltano can't read its schedules: {one_line(error).rstrip('.')}; see orchestrate/."
        ) from error
    # a run refuses a source with a mistake
    known, _ = sources.read_with_faults(project)
    listed = [_source(meltano, each) for each in known]
    pairs = sorted(set(_pairs(schedules)) - {(each.tap, each.target) for each in known})
    listed += [_other_tap(project, meltano, *pair) for pair in pairs]
    content = {"schedules": schedules, "sources": listed, "together": model_sources.together(project)}
    return json.dumps(content, indent=2) + "\n"


def refresh(project: Project, *, dry_run: bool = False) -> bool:
    """Write the file again if it is there and not current. Return whether it was not.

    Args:
        dry_run: only look.

    Raises:
        UsageError: see `export`; or the file can't be written.
    """
    path = project.root / FILE
    if not path.exists() or path.read_text() == (text := export(project)):
        return False
    if not dry_run:
        new = path.with_name(f"{path.name}.new")
        try:
            new.write_text(text)
            new.replace(path)
        except OSError as error:
            raise UsageError(f"{FILE} can't be written: {error.strerror}; run `make schedules` once it can.") from None
    return True


def _pairs(schedules: list[dict[str, Any]]) -> Iterator[tuple[str, str]]:
    """Yield the names of each tap and its target."""
    for schedule in schedules:
        for job_task in schedule["tasks"]:
            names = job_task.split()
            for name, following in pairwise(names):
                if name.startswith("tap-") and following.startswith("target-"):
                    yield name, following


def _source(meltano: MeltanoProject, source: SourceDefinition) -> dict[str, Any]:
    """Return a source of ours, with its name, and its streams as commands take them."""
    found, _ = meltano_project.plugin(meltano, source.tap)
    streams = [] if source.retired else _streams(found)
    return {
        "name": source.name,
        "tap": source.tap,
        "target": source.target,
        "schema": source.raw_schema,
        "streams": streams,
        "shown": [source.shown(stream) for stream in streams],
        "excluded": _excluded(found),
        "retired": source.retired,
    }


def _other_tap(project: Project, meltano: MeltanoProject, tap: str, target: str) -> dict[str, Any]:
    """Return another tap's pair, whose streams are loaded, too."""
    found, _ = meltano_project.plugin(meltano, tap)
    schema = resolved_settings.read(project, target, [_SCHEMA]).get(_SCHEMA)
    return {
        "tap": tap,
        "target": target,
        "schema": schema and schema.value,
        "streams": _streams(found),
        "excluded": _excluded(found),
    }


def _streams(tap: ProjectPlugin) -> list[str]:
    return sorted({pattern.rpartition(".")[0] for pattern in tap.extras.get("select", []) if pattern[0] != "!"})


def _excluded(tap: ProjectPlugin) -> list[str]:
    """Return the patterns of whole streams that are excluded; `!public-orders.note` excludes a column only."""
    patterns = [str(pattern) for pattern in tap.extras.get("select", [])]
    return sorted({each[1:].rpartition(".")[0] for each in patterns if each[0] == "!" and each.endswith(".*")})


def _job_tasks(jobs: Any, schedule: Any) -> list[str]:
    """Return the arguments of `meltano run`, one item per task of the job."""
    if hasattr(schedule, "job"):
        return [" ".join(blocks) for blocks in jobs.get(schedule.job).flat_args_per_set]
    return [f"{schedule.extractor} {schedule.loader}"]
