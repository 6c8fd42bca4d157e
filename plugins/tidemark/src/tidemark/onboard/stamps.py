"""Tells what the catalogs say about a column that may hold the time of a row's last change. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tidemark.onboard.source_tables import SourceColumn


def is_timestamp(column: SourceColumn) -> bool:
    """Return whether a column holds instants or local times."""
    return column.base_type.startswith("timestamp") and not column.base_type.endswith("[]")


def has_zone(column: SourceColumn) -> bool:
    """Return whether a column's values are instants."""
    return column.base_type.endswith("with time zone") and "without" not in column.base_type


def has_clock_default(column: SourceColumn) -> bool:
    """Return whether an insert without a value gets the current time."""
    default = (column.default or "").lower()
    return any(word in default for word in ("now()", "current_timestamp", "localtimestamp", "_timestamp()"))
