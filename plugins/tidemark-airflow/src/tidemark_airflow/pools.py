"""Pools limit what runs at once. By default one task reads a source, and one builds in the warehouse.

A task waits for slots in its pool. Without pools, the warehouse's locks would refuse it. Runs that share a load have a
slot each, and any other task that reads the source takes as many as all of them together.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from tidemark_airflow.steps import Step

SOURCE = "tidemark_source"
WAREHOUSE = "tidemark_warehouse"
# Airflow's own pool, for tasks that block nobody
NONE = "default_pool"
_FIRST = "postgres"

_DESCRIPTIONS = {
    SOURCE: "Tasks that read the first source, or look at all of them: loads, backfills, comparisons.",
    WAREHOUSE: "Tasks that build or test the warehouse's models.",
}


def of_source(name: str | None) -> str:
    """Return the pool of the tasks that read a source; None is for those that read any."""
    return SOURCE if name in {None, _FIRST} else f"{SOURCE}_{name}"


def slots(steps: Iterable[Step]) -> dict[str, int]:
    """Return how many slots the tasks of each pool need, where that is more than one."""
    found: dict[str, int] = {}
    for step in steps:
        if step.shards > 1:
            pool = of_source(step.source)
            found[pool] = max(step.shards, found.get(pool, 0))
    return found


def descriptions(sources: Iterable[str]) -> dict[str, str]:
    """Return all pools with their descriptions."""
    further = {of_source(name): f"Tasks that read the source {name}." for name in sources}
    return {**further, **_DESCRIPTIONS}
