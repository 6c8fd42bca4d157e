"""Which kind a failure is of: docs/runbook.md has a section for each. Pure: no I/O here."""

from __future__ import annotations

import re
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence


class FailureKind(StrEnum):
    """What a run failed of, as the headings of the runbook have it."""

    busy = "busy"
    unreachable = "unreachable"
    state = "state"
    shape = "shape"
    load = "load"
    models = "models"
    tests = "tests"
    freshness = "freshness"
    reconcile = "reconcile"
    backup = "backup"
    other = "other"


_UNREACHABLE = re.compile(
    r"cannot connect|could not connect|connection (refused|failed|timed out|lost)|could not translate host name|"
    r"password authentication failed|server closed the connection|starting up|shutting down|terminating connection|"
    r"no pg_hba\.conf entry|does not answer",
    re.IGNORECASE,
)
_STATE = re.compile(r"^State says that |another database|would be missed")
_SHAPE = re.compile(
    r"was not found in the catalog|can't be (?:widened|followed|altered)|changed (?:its type|from)|column "
)
_OF_COMMAND = {
    "dbt-postgres:run": FailureKind.models,
    "dbt-postgres:build": FailureKind.models,
    "dbt-postgres:snapshot": FailureKind.models,
    "dbt-postgres:touched": FailureKind.models,
    "dbt-postgres:test": FailureKind.tests,
    "dbt-postgres:touched-test": FailureKind.tests,
    "dbt-postgres:freshness": FailureKind.freshness,
    "tidemark:reconcile": FailureKind.reconcile,
    "tidemark:backup": FailureKind.backup,
}


def split(blocks: Sequence[str]) -> list[str]:
    """Return what `meltano run` makes of its arguments: each command, and each tap with all up to its target.

    Raises:
        ValueError: a tap has no target, or a target no tap.
    """
    found: list[str] = []
    waiting: list[str] = []
    for name in blocks:
        if ":" in name:
            if waiting:
                raise ValueError(f"{' '.join(waiting)} has no target; write one after it")
            found.append(name)
            continue
        waiting.append(name)
        if name.startswith("target-"):
            if len(waiting) == 1:
                raise ValueError(f"{name} has no tap; write one before it")
            found.append(" ".join(waiting))
            waiting = []
    if waiting:
        raise ValueError(f"{' '.join(waiting)} has no target; write one after it")
    return found


def kind_of(block: str, reason: str) -> FailureKind:
    """Return which kind of failure it is, by the block that failed and what it said."""
    if _UNREACHABLE.search(reason):
        return FailureKind.unreachable
    if block in _OF_COMMAND:
        return _OF_COMMAND[block]
    if ":" in block:
        return FailureKind.other
    if _STATE.search(reason):
        return FailureKind.state
    return FailureKind.shape if _SHAPE.search(reason) else FailureKind.load
