"""How often each schedule runs, and so how often each stream is loaded: from Meltano's schedules."""

from __future__ import annotations

import functools
import json
from datetime import UTC, datetime
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any

from croniter import croniter

from tidemark.errors import UsageError
from tidemark.metrics import catalogue
from tidemark.project import schedules, variables

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from tidemark.metrics.samples import Samples
    from tidemark.project.directory import Project

# Meltano's intervals for a schedule that is started by hand or once
_NO_INTERVAL = {"", "@manual", "@none", "@once"}
# a week with its nights and weekends, and a year of daily runs
_WEEK_S, _RUNS = 8 * 86_400, 400


class Schedules:
    """The schedules, and the sources that they load."""

    def __init__(self, project: Project) -> None:
        """Read them; if one of Meltano's files changed since the last time, Meltano is asked again.

        Raises:
            UsageError: Meltano can't read its files, or an interval has no form of a schedule.
        """
        content = json.loads(schedules.current(project))
        try:
            self._intervals = {
                str(each["name"]): seconds
                for each in content["schedules"]
                if (seconds := longest_interval(str(each["interval"] or ""))) is not None
            }
            self._job_tasks = {str(each["name"]): list(map(str, each["tasks"])) for each in content["schedules"]}
            self._sources = [_with_schema(project, source) for source in content["sources"]]
        except ValueError as error:
            raise UsageError(f"A schedule's interval can't be read: {error}; see orchestrate/.") from error

    @property
    def names(self) -> dict[str, str]:
        """The names of the project's sources by the schemas that they are loaded into."""
        return {each["schema"]: str(each["name"]) for each in self._sources if each.get("name")}

    def schema(self, tap: str, target: str) -> str | None:
        """Return the schema that a pair of tap and target loads into; None if no schedule has the pair."""
        pairs = {(each["tap"], each["target"]): each["schema"] for each in self._sources}
        return pairs.get((tap, target))

    def tell(self, samples: Samples, streams: Iterable[tuple[str, str]]) -> None:
        """Add the intervals of the schedules and of the streams.

        Args:
            streams: the sources and streams that the warehouse knows.
        """
        for name, seconds in self._intervals.items():
            samples.add(catalogue.SCHEDULE_INTERVAL, seconds, name)
        samples.add(catalogue.BUILD_INTERVAL, self._shortest(_builds))
        for source, stream in streams:
            samples.add(catalogue.STREAM_INTERVAL, self._interval(source, stream), source, stream)

    def _interval(self, source: str, stream: str) -> float | None:
        pairs = [
            f"{each['tap']} {each['target']}"
            for each in self._sources
            if each["schema"] == source and _matches(stream, each["streams"]) and not _matches(stream, each["excluded"])
        ]
        return self._shortest(lambda job_task: any(pair in job_task for pair in pairs))

    def _shortest(self, wanted: Callable[[str], bool]) -> float | None:
        """Return the shortest interval of the schedules whose job has a certain task; None if there are none."""
        found = [seconds for name, seconds in self._intervals.items() if any(map(wanted, self._job_tasks[name]))]
        return min(found, default=None)


def _matches(stream: str, patterns: Iterable[str]) -> bool:
    return any(fnmatchcase(stream, pattern) for pattern in patterns)


def _builds(job_task: str) -> bool:
    return any(block.startswith("dbt") and block.partition(":")[2] in {"run", "build"} for block in job_task.split())


def _with_schema(project: Project, source: dict[str, Any]) -> dict[str, Any]:
    """Return a source of the file, with the schema that the environment names, if it does."""
    named = variables.read(project).get(f"{source['target'].upper().replace('-', '_')}_DEFAULT_TARGET_SCHEMA")
    return {**source, "schema": named or source["schema"]}


@functools.cache
def longest_interval(cron: str) -> float | None:
    """Return the longest time between two runs of a schedule in seconds; None if it has no times.

    Raises:
        ValueError: it is neither a cron expression nor a word such as @hourly.
    """
    if cron in _NO_INTERVAL:
        return None
    times = croniter(cron, datetime(2026, 1, 1, tzinfo=UTC))
    first = before = times.get_next(float)
    longest, runs = 0.0, 0
    while runs < _RUNS or before - first < _WEEK_S:
        after = times.get_next(float)
        longest, before, runs = max(longest, after - before), after, runs + 1
    return longest
