"""What the latest runs cost their sources, as the run history has it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from psycopg import sql

from singer_postgres.core.warehouse.run_history import COSTS
from tidemark.inspect.tables import printed_size

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

# as JSON, because a warehouse of an older release lacks the columns
COLUMN = sql.SQL("(select jsonb_object_agg(key, value) from jsonb_each(to_jsonb(run)) where key = any({}))").format(
    sql.Literal(["seconds_reading", *COSTS])
)


def spoken(costs: Mapping[str, Any]) -> str:
    """Return the costs for a person to read; an empty text if none is known.

    >>> spoken({"source_bytes": 1_300_000, "seconds_reading": 0.2, "source_buffers_hit": 900, "source_buffers_read": 5})
    '1.2 MB in 0.2 s, 905 pages (5 not in memory)'
    """
    return ", ".join(_parts(costs))


def brief(costs: Mapping[str, Any]) -> str:
    """Return how much was read and for how long, for a table.

    >>> brief({"source_bytes": 1_300_000, "seconds_reading": 0.2, "snapshot_seconds": 0.3})
    '1.2 MB in 0.2 s'
    """
    return next(_parts(costs), "")


def _parts(costs: Mapping[str, Any]) -> Iterator[str]:
    if costs.get("source_bytes") is None:
        return
    yield f"{printed_size(costs['source_bytes'])} in {costs.get('seconds_reading') or 0:.1f} s"
    hit, read = costs.get("source_buffers_hit"), costs.get("source_buffers_read")
    if hit is not None and read is not None:
        yield f"{hit + read:,} pages ({read:,} not in memory)"
    if costs.get("source_wal_bytes"):
        yield f"{printed_size(costs['source_wal_bytes'])} of WAL"
    if costs.get("snapshot_seconds") is not None:
        yield f"a snapshot held for {costs['snapshot_seconds']:.1f} s"
    if costs.get("seconds_paused"):
        yield f"{costs['seconds_paused']:.1f} s paused"
