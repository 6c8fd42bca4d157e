"""Chooses the columns to leave out, those to offer, and says which ones land as another type. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from singer_postgres.core.warehouse.metadata_columns import METADATA
from singer_postgres.core.wire import OWN
from tidemark.onboard.words import listed

if TYPE_CHECKING:
    from tidemark.onboard.source_tables import SourceColumn, SourceTable

# a wider column is offered to be left out
_WIDE_BYTES = 1024
_SHOWN_TYPES = 4


@dataclass(frozen=True)
class ColumnChoice:
    """What to do with a table's columns.

    Attributes:
        left_out: not read, each with the reason.
        offered: read, and could well be left out, each with the reason.
        impossible: why the table can't be read at all; None if it can.
    """

    left_out: dict[str, str] = field(default_factory=dict)
    offered: dict[str, str] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    impossible: str | None = None


def choose(table: SourceTable) -> ColumnChoice:
    """Choose among a table's columns. Columns of the key are read in any case."""
    left_out, offered = {}, {}
    for column in table.columns:
        if why := _why_not(column):
            if column.name in table.key:
                return ColumnChoice(impossible=f"its key has {column.name}, which can't be loaded: {why}")
            left_out[column.name] = why
        elif column.name not in table.key:
            if column.base_type == "tsvector":
                left_out[column.name] = "a search index (tsvector), which the source computes from other columns"
            elif why := _why_offered(column):
                offered[column.name] = why
    read = [column for column in table.columns if column.name not in left_out]
    if not read:
        return ColumnChoice(left_out, impossible=f"none of its columns can be read ({listed(left_out)})")
    return ColumnChoice(left_out, offered, tuple(_landing(read)))


def _why_not(column: SourceColumn) -> str | None:
    if not column.readable:
        return "the tap's role may not read it"
    if column.name in METADATA or column.name.startswith(OWN):
        return "its name is one of the warehouse's own columns; rename it in a view to load it"
    if column.warehouse_type is None:
        return f"nothing can read values of type {column.type}"
    return None


def _why_offered(column: SourceColumn) -> str | None:
    if column.is_generated:
        return "the source generates it from other columns"
    if column.base_type.removesuffix("[]") == "bytea":
        return "binary data (bytea)"
    if (column.average_bytes or 0) > _WIDE_BYTES:
        return f"wide: {column.average_bytes:,} bytes on average"
    return None


def _landing(columns: list[SourceColumn]) -> list[str]:
    found = []
    other = [f"{each.name} ({each.instead_of}) as {each.warehouse_type}" for each in columns if each.instead_of]
    if other:
        found.append(f"another type in the warehouse: {listed(other, _SHOWN_TYPES)}")
    if foreign := [f"{each.name} ({each.warehouse_type})" for each in columns if each.of_extension]:
        found.append(f"an extension's type, which becomes text if the warehouse lacks the extension: {listed(foreign)}")
    if xml := [each.name for each in columns if (each.warehouse_type or "").removesuffix("[]") == "xml"]:
        found.append(f"xml becomes text if the warehouse's server was built without it: {listed(xml)}")
    return found
