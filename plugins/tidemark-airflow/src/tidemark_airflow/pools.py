"""Pools limit what runs at once. By default one task reads a source, and one builds in the warehouse.

A task waits for a slot in its pool. Without pools, the warehouse's locks would refuse it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

SOURCE = "tidemark_source"
WAREHOUSE = "tidemark_warehouse"
# Airflow's own pool, for tasks that block nobody
NONE = "default_pool"
_FIRST = "postgres"

SLOTS = 1
_DESCRIPTIONS = {
    SOURCE: "Tasks that read the first source, or look at all of them: loads, backfills, comparisons.",
    WAREHOUSE: "Tasks that build or test the warehouse's models.",
}


def of_source(name: str | None) -> str:
    """Return the pool of the tasks that read a source; None is for those that read any."""
    return SOURCE if name in {None, _FIRST} else f"{SOURCE}_{name}"


def descriptions(sources: Iterable[str]) -> dict[str, str]:
    """Return all pools with their descriptions."""
    further = {of_source(name): f"Tasks that read the source {name}." for name in sources}
    return {**further, **_DESCRIPTIONS}
