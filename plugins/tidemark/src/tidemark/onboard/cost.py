"""What it costs to read a table whole, by the statistics. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tidemark.onboard.source_tables import SourceTable

# A table up to this size is read whole in a second or two; `tidemark check` calls larger ones large too.
CHEAP_BYTES = 64 * 2**20
# the schedule that costs are stated for: hourly
RUNS_A_DAY = 24


def is_cheap(table: SourceTable) -> bool:
    """Return whether reading a table whole in each run takes no noticeable time."""
    return table.bytes <= CHEAP_BYTES


def whole(table: SourceTable) -> str:
    """Return the cost of reading a table whole in each run."""
    a_run = f"{_rows(table.rows)}, {shown_bytes(table.bytes)} a run"
    return f"{a_run}; {shown_bytes(table.bytes * RUNS_A_DAY)} a day, hourly"


def _rows(rows: float) -> str:
    if rows < 0:
        return "rows unknown (never analyzed)"
    return f"about {rows:,.0f} row{'s' * (round(rows) != 1)}"


def shown_bytes(size: float) -> str:
    """Return a number of bytes with a unit."""
    unit = "bytes"
    for larger in ("KiB", "MiB", "GiB", "TiB"):
        if size < 1024:  # noqa: PLR2004
            break
        size, unit = size / 1024, larger
    return f"{size:,.0f} {unit}"
