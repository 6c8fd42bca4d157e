"""Reads orchestrate/schedules.json: Meltano's schedules, from which DAGs are made. Pure: no I/O here."""

from __future__ import annotations

import json
import re
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

# Meltano's intervals for a schedule that is started by hand
_BY_HAND = {"@manual", "@none", ""}
_FIRST_TAP = "tap-postgres"
_BACKUP = "tidemark:backup"


@dataclass(frozen=True)
class Step:
    """A task: the blocks for `meltano run`, and a name that says what it does."""

    name: str
    blocks: tuple[str, ...]

    @property
    def loads(self) -> bool:
        """Whether a tap and target are among its blocks."""
        return any(":" not in block for block in self.blocks)

    @property
    def reads_source(self) -> bool:
        """Whether it puts load on the source database."""
        return self.loads or any(block.startswith("tidemark:") for block in self.blocks if block != _BACKUP)

    @property
    def only_backs_up(self) -> bool:
        """Whether it is only a backup, which blocks no run and no build."""
        return set(self.blocks) == {_BACKUP}

    @property
    def tests(self) -> bool:
        """Whether it tests the models."""
        return any(block.startswith("dbt") and block.endswith(":test") for block in self.blocks)


@dataclass(frozen=True)
class Schedule:
    """A DAG. `interval` is Airflow's; None if the DAG is started by hand."""

    name: str
    interval: str | None
    env: Mapping[str, str]
    steps: tuple[Step, ...]


@dataclass(frozen=True)
class Export:
    """The whole file."""

    schedules: tuple[Schedule, ...]
    streams: tuple[str, ...]


def parse(text: str) -> Export:
    """Parse the file.

    Raises:
        ValueError: it is not in the format of `make schedules`.
    """
    try:
        content = json.loads(text)
        schedules = tuple(_schedule(each) for each in content["schedules"])
        streams = tuple(str(each) for each in content["streams"])
    except (KeyError, TypeError, ValueError) as error:
        msg = f"orchestrate/schedules.json can't be read ({type(error).__name__}: {error}); run `make schedules`."
        raise ValueError(msg) from error
    if twice := [name for name, count in Counter(each.name for each in schedules).items() if count > 1]:
        msg = f"orchestrate/schedules.json has {twice[0]} twice; give each schedule its own name."
        raise ValueError(msg)
    return Export(tuple(sorted(schedules, key=lambda each: each.name)), streams)


def _schedule(fields: Mapping[str, Any]) -> Schedule:
    tasks = [tuple(str(task).split()) for task in fields["tasks"]]
    names = _distinct(name(blocks) for blocks in tasks)
    interval = fields["interval"] or ""
    return Schedule(
        name=str(fields["name"]),
        interval=None if interval in _BY_HAND else str(interval),
        env={str(key): str(value) for key, value in (fields.get("env") or {}).items()},
        steps=tuple(Step(name, blocks) for name, blocks in zip(names, tasks, strict=True)),
    )


def name(blocks: tuple[str, ...]) -> str:
    """Return a task's name, from what it does first: extract_load, dbt_run, dbt_test, reconcile."""
    first = blocks[0] if blocks else ""
    if not first:
        msg = "a task has no blocks"
        raise ValueError(msg)
    plugin, colon, command = first.partition(":")
    if not colon:
        what = "extract_load" if plugin == _FIRST_TAP else f"extract_load_{plugin.removeprefix('tap-')}"
    elif plugin == "tidemark":
        what = command
    else:
        what = f"{plugin.partition('-')[0]}_{command}"
    return re.sub(r"\W", "_", what)


def _distinct(names: Iterable[str]) -> list[str]:
    """Return the names, with a number after each repeated one."""
    seen: Counter[str] = Counter()
    found = []
    for each in names:
        seen[each] += 1
        found.append(each if seen[each] == 1 else f"{each}_{seen[each]}")
    return found
