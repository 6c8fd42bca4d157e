"""Parses what `tidemark schedules` prints: Meltano's schedules, from which DAGs are made. Pure: no I/O here."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from tidemark_airflow import pools, steps

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tidemark_airflow.steps import Step

# Meltano's intervals for a schedule that is started by hand
_BY_HAND = {"@manual", "@none", ""}


@dataclass(frozen=True)
class Source:
    """A source.

    Attributes:
        schema: the warehouse's schema that it is loaded into.
        streams: its streams, as `tidemark backfill` takes them.
        retired: whether it was given up.
        slots: how many slots of its pool a task takes that nothing else is to run beside.
    """

    name: str
    tap: str
    schema: str
    streams: tuple[str, ...] = ()
    retired: bool = False
    slots: int = 1


@dataclass(frozen=True)
class Schedule:
    """A DAG. `interval` is Airflow's; None if the DAG is started by hand."""

    name: str
    interval: str | None
    env: Mapping[str, str]
    steps: tuple[Step, ...]


@dataclass(frozen=True)
class Export:
    """All schedules and sources."""

    schedules: tuple[Schedule, ...]
    sources: tuple[Source, ...] = field(default=())


def parse(text: str) -> Export:
    """Parse the schedules.

    Raises:
        ValueError: they are not as `tidemark schedules` prints them.
    """
    try:
        content = json.loads(text)
        # taps that are not Tidemark's have no name there
        sources = tuple(_source(each) for each in content["sources"] if each.get("name"))
        together = [frozenset(map(str, each)) for each in content.get("together", ())]
        loaded = {block for each in content["schedules"] for task in each["tasks"] for block in str(task).split()}
        # a source that selects nothing, and that no schedule loads, has nothing to compare
        compared = [each.name for each in sources if not each.retired and (each.streams or each.tap in loaded)]
        schedules = tuple(_schedule(each, sources, together, compared) for each in content["schedules"])
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        msg = f"The output of `tidemark schedules` can't be read ({type(error).__name__}: {error})."
        raise ValueError(msg) from error
    if twice := [name for name, count in Counter(each.name for each in schedules).items() if count > 1]:
        msg = f"The schedule {twice[0]} is there twice in orchestrate/; give each schedule its own name."
        raise ValueError(msg)
    slots = pools.slots(step for schedule in schedules for step in schedule.steps)
    schedules = tuple(
        replace(schedule, steps=tuple(_with_slots(step, slots) for step in schedule.steps)) for schedule in schedules
    )
    sources = tuple(replace(each, slots=slots.get(pools.of_source(each.name), 1)) for each in sources)
    return Export(tuple(sorted(schedules, key=lambda each: each.name)), sources)


def _with_slots(step: Step, slots: Mapping[str, int]) -> Step:
    """Return the step so that its runs together take all slots of its source's pool."""
    of_pool = slots.get(pools.of_source(step.source), 1) if step.reads_source else 1
    return replace(step, slots=max(1, of_pool // step.shards))


def _source(fields: Mapping[str, Any]) -> Source:
    return Source(
        name=str(fields["name"]),
        tap=str(fields["tap"]),
        schema=str(fields["schema"]),
        streams=tuple(map(str, fields["shown"])),
        retired=bool(fields.get("retired")),
    )


def _schedule(
    fields: Mapping[str, Any], sources: tuple[Source, ...], together: list[frozenset[str]], compared: list[str]
) -> Schedule:
    tasks = [tuple(str(task).split()) for task in fields["tasks"]]
    interval = fields["interval"] or ""
    return Schedule(
        name=str(fields["name"]),
        interval=None if interval in _BY_HAND else str(interval),
        env={str(key): str(value) for key, value in (fields.get("env") or {}).items()},
        steps=steps.plan(
            tasks,
            {each.tap: each.name for each in sources},
            together,
            compared,
            shards=int(fields.get("shards", 1)),
        ),
    )
