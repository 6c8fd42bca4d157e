"""Meltano's schedules as JSON, from which Airflow's DAGs and the metrics of lateness are made.

Asking Meltano takes a second or two. So the answer is kept in a file, with a digest of the files that it came from.
Whoever reads it compares the digest, and writes it again if it is another one: tidemark_airflow.current_schedules does
it as this module does.
"""

from __future__ import annotations

import hashlib
import json
import os
from contextlib import suppress
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from singer_postgres.core.errors import one_line
from tidemark.errors import UsageError
from tidemark.project import meltano_project, model_sources, resolved_settings, sources, yaml_files

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from meltano.core.plugin.project_plugin import ProjectPlugin
    from meltano.core.project import Project as MeltanoProject

    from tidemark.project.directory import Project
    from tidemark.project.sources import SourceDefinition

# committed, because all machines of an Airflow must make the same DAGs
FILE = "orchestrate/schedules.json"
_SCHEMA = "default_target_schema"
# each of them starts Meltano, and has connections to both databases
MOST_SHARDS = 100


def current(project: Project) -> str:
    """Return the schedules of Meltano's files as they are now: those of the last time, if no file changed since.

    Raises:
        UsageError: see `export`.
    """
    if (kept := _kept(project)) is not None:
        return kept
    path, text = project.root / FILE, export(project)
    # where nothing can be written, Meltano is asked each time
    with suppress(OSError):
        new = path.with_name(f"{path.name}.{os.getpid()}")
        new.write_text(text, encoding="utf-8")
        new.replace(path)
    return text


def refresh(project: Project) -> bool:
    """Write the file again if it is not current. Return whether it was not.

    Raises:
        UsageError: see `export`.
    """
    is_stale = not is_current(project)
    if is_stale:
        current(project)
    return is_stale


def is_current(project: Project) -> bool:
    """Return whether the file comes from Meltano's files as they are."""
    return _kept(project) is not None


def _kept(project: Project) -> str | None:
    """Return the file's text; None if it is missing, or came from other files of Meltano's."""
    with suppress(OSError, ValueError, KeyError, TypeError):
        text = (project.root / FILE).read_text(encoding="utf-8")
        made_from = json.loads(text)["made_from"]
        if made_from["digest"] == digest(project.root, made_from["paths"]):
            return text
    return None


def digest(root: Path, paths: Iterable[str]) -> str:
    """Return a digest of names and contents of the files that these patterns match."""
    found = hashlib.sha256()
    for path in sorted({path for pattern in paths for path in root.glob(pattern) if path.is_file()}):
        content = path.read_bytes()
        found.update(f"{path.relative_to(root)} {len(content)} ".encode())
        found.update(content)
    return found.hexdigest()


def export(project: Project) -> str:
    """Return the schedules with their jobs, and each source with its schema and streams, as JSON.

    Raises:
        UsageError: Meltano's files can't be read, or a schedule's job doesn't exist.
    """
    from meltano.core.error import MeltanoError  # noqa: PLC0415
    from meltano.core.schedule_service import ScheduleService  # noqa: PLC0415
    from meltano.core.task_sets_service import JobNotFoundError, TaskSetsService  # noqa: PLC0415

    paths = ["meltano.yml", *map(str, yaml_files.read(project).documents[0].get("include_paths") or ())]
    # before Meltano reads them, so that an edit meanwhile is noticed
    made_from = {"paths": paths, "digest": digest(project.root, paths)}
    meltano = meltano_project.find(project)
    try:
        jobs = TaskSetsService(meltano)
        schedules = [
            {
                "name": each.name,
                "interval": each.interval,
                "env": each.env,
                **({"shards": count} if (count := shards(each.name, dict(each).get("shards", 1))) > 1 else {}),
                "tasks": _job_tasks(jobs, each),
            }
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
    content = {
        "schedules": schedules,
        "sources": listed,
        "together": model_sources.together(project),
        "made_from": made_from,
    }
    return json.dumps(content, indent=2) + "\n"


def shards(schedule: str, value: object) -> int:
    """Return among how many runs a schedule shares each of its loads.

    Raises:
        UsageError: it is no such number.
    """
    if isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= MOST_SHARDS:
        return value
    raise UsageError(
        f"The schedule {schedule} has shards {value!r}: write how many runs are to share its load, a whole number from "
        f"1 to {MOST_SHARDS}, or leave it out (orchestrate/)."
    )


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
