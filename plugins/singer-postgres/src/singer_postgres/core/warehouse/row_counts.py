"""What became of a stream's rows."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class RowCounts:
    """Rows of one chunk that came, and of these the inserted, updated and rejected ones; and rows that were deleted.

    Rows that were there already are neither inserted nor updated.
    """

    read: int = 0
    inserted: int = 0
    updated: int = 0
    deleted: int = 0
    rejected: int = 0
