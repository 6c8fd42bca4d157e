"""What reading a stream costs the source: bytes, buffers, WAL, and how long a snapshot was held.

The server counts for each of its sessions what that session alone has read and written. Counts of a whole table, as in
`pg_statio_all_tables`, contain what other sessions did meanwhile, so they are not used.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

    from psycopg2.extensions import connection as Connection  # noqa: N812
    from psycopg2.extensions import cursor as Cursor  # noqa: N812

# the first version that counts the WAL of each session
_COUNTS_WAL_SINCE = 18_00_00
_FLUSH = "pg_stat_force_next_flush()"
_FUNCTIONS = ["pg_stat_get_xact_blocks_fetched(oid)", "pg_stat_get_xact_blocks_hit(oid)", _FLUSH]
_IS_ABLE = """
    select current_setting('track_counts')::bool
        and bool_and(coalesce(has_function_privilege(to_regprocedure(name), 'execute'), false))
    from unnest(%s::text[]) name
"""
# what this session has counted and not yet handed over, of tables, their indexes, and the tables of their large values
_BUFFERS = """
    with heaps(oid) as (
        select unnest(%s::bigint[]::oid[])
    ), relations(oid) as (
        select oid from heaps
        union all
        select reltoastrelid from pg_class join heaps using (oid) where reltoastrelid <> 0
    ), counted(oid) as (
        select oid from relations
        union all
        select indexrelid from pg_index join relations on oid = indrelid
    )
    select sum(pg_stat_get_xact_blocks_fetched(oid))::bigint, sum(pg_stat_get_xact_blocks_hit(oid))::bigint
    from counted
"""
_WAL = "select wal_bytes::bigint from pg_stat_get_backend_wal(pg_backend_pid())"


@dataclass
class SourceCost:
    """What reading cost the source.

    Attributes:
        bytes: the rows, as the source sent them; those that were read twice count twice.
        seconds: how long parallel workers read, added up.
        paused_s: how long they paused to stay below `max_source_mb_per_s`.
        snapshot_s: the longest time for which a snapshot was held.
        buffers_hit: pages that the server found in its memory, for ranges that were read to their end; None if unknown.
        buffers_read: pages that it had to fetch from the system, in the same way.
        wal_bytes: the WAL that reading wrote: it marks rows as committed, and prunes pages; None if unknown.
    """

    bytes: int = 0
    seconds: float = 0.0
    paused_s: float = 0.0
    snapshot_s: float = 0.0
    buffers_hit: int | None = 0
    buffers_read: int | None = 0
    wal_bytes: int | None = 0

    def add(self, other: SourceCost) -> None:
        """Add the cost of a part."""
        self.bytes += other.bytes
        self.seconds += other.seconds
        self.paused_s += other.paused_s
        self.snapshot_s = max(self.snapshot_s, other.snapshot_s)
        self.buffers_hit = _sum(self.buffers_hit, other.buffers_hit)
        self.buffers_read = _sum(self.buffers_read, other.buffers_read)
        self.wal_bytes = _sum(self.wal_bytes, other.wal_bytes)


def _sum(one: int | None, other: int | None) -> int | None:
    return None if one is None or other is None else one + other


class SessionMeter:
    """Measures what one worker's sessions read and write, range by range."""

    def __init__(self) -> None:
        """Start without a session."""
        self._connection: Connection | None = None
        self._is_able = self._counts_wal = False
        self._wal_bytes = 0

    def begin(self, connection: Connection, cursor: Cursor) -> None:
        """Begin to measure a session, unless it is measured already."""
        if connection is self._connection:
            return
        cursor.execute(_IS_ABLE, [_FUNCTIONS])
        self._connection, self._is_able = connection, bool(_row(cursor)[0])
        self._counts_wal = self._is_able and connection.info.server_version >= _COUNTS_WAL_SINCE
        self._wal_bytes = self._wal(cursor)

    def commit(self, cursor: Cursor, tables: Sequence[int] | None, cost: SourceCost) -> None:
        """Commit a range's transaction, and add to `cost` what the server counted.

        Args:
            tables: the oids of the tables that were read; None if this session did not count all of it.
        """
        cost.buffers_hit = cost.buffers_read = cost.wal_bytes = None
        if not self._is_able:
            cursor.execute("COMMIT")
            return
        if tables is not None:
            cursor.execute(_BUFFERS, [list(tables)])
            fetched, cost.buffers_hit = map(int, _row(cursor))
            cost.buffers_read = fetched - cost.buffers_hit
        # handed over, so that the next range begins with zero, and so that the server shows the WAL
        cursor.execute(f"SELECT {_FLUSH}; COMMIT")
        before, self._wal_bytes = self._wal_bytes, self._wal(cursor)
        if self._counts_wal and tables is not None:
            cost.wal_bytes = self._wal_bytes - before

    def _wal(self, cursor: Cursor) -> int:
        if not self._counts_wal:
            return 0
        cursor.execute(_WAL)
        return int(_row(cursor)[0])


def _row(cursor: Cursor) -> tuple[Any, ...]:
    row = cursor.fetchone()
    assert row
    return tuple(row)
