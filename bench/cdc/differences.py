"""Compares a tool's table with the source, row by row."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import psycopg

    from bench.cdc.peers.base import Peer

_ROWS = """
    select id, hashtextextended(row(
        order_id::bigint, product_id::bigint, quantity::int, unit_price::numeric(12, 2), discount::numeric(12, 2),
        created_at::timestamptz, updated_at::timestamptz
    )::text, 0), hashtextextended(note, 0)
    from {schema}.items
"""


@dataclass(frozen=True)
class Differences:
    """How many rows of the source are missing or wrong in the tool's table, and how many it should not have."""

    missing: int = 0
    extra: int = 0
    wrong: int = 0
    nulled: int = 0
    """Of the wrong ones, those whose large value is null."""

    def __bool__(self) -> bool:
        """Say whether anything differs."""
        return bool(self.missing or self.extra or self.wrong)

    def __str__(self) -> str:
        """Say what differs."""
        nulled = f" ({self.nulled:,} have null for the large value)" if self.nulled else ""
        counts = {"missing": self.missing, "extra": self.extra, f"wrong{nulled}": self.wrong}
        return ", ".join(f"{count:,} rows {what}" for what, count in counts.items() if count)


def find(peer: Peer) -> Differences:
    """Compare all rows."""
    with peer.servers.source() as connection:
        source = _rows(connection, "public")
    with peer.servers.warehouse(peer.database) as connection:
        there = _rows(connection, peer.schema)
    both = source.keys() & there.keys()
    wrong = [key for key in both if source[key] != there[key]]
    nulled = sum(source[key][1] is not None and there[key][1] is None for key in wrong)
    return Differences(len(source) - len(both), len(there) - len(both), len(wrong), nulled)


def _rows(connection: psycopg.Connection[Any], schema: str) -> dict[int, tuple[int, int | None]]:
    connection.execute("set time zone 'UTC'")
    return {key: (row, note) for key, row, note in connection.execute(_ROWS.format(schema=schema).encode())}
