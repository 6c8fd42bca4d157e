"""How many rows of a stream were read, inserted, updated, deleted and rejected."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class RowCounts:
    """The rows that one chunk brought, how many of them were inserted, updated and rejected, and the deleted rows.

    A row that the table already had counts as neither inserted nor updated.
    """

    read: int = 0
    inserted: int = 0
    updated: int = 0
    deleted: int = 0
    rejected: int = 0
