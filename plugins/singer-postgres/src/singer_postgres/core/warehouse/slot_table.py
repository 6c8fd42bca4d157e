"""`_tidemark_slots`: up to where the warehouse has the changes of a replication slot, committed together with them."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from singer_postgres.core.errors import SlotAheadError
from singer_postgres.core.log_origin import LogOrigin
from singer_postgres.core.sql_compat import sql
from singer_postgres.core.warehouse.system_tables import SystemTable

if TYPE_CHECKING:
    from collections.abc import Sequence

    import psycopg

    from singer_postgres.core.wire import Cut

_AGAIN = "`tidemark slots repair` makes the slot again if it must, compares the streams with the source, and goes on."
TABLE = SystemTable(
    "_tidemark_slots",
    (
        """
        -- One row per replication slot: its LOG_BASED streams have all transactions before the position, and no others.
        -- Written by: the target, in the transaction that merges the changes.
        -- Read by: the target, `tidemark status`, `slots` and `metrics`.
        CREATE TABLE {} (
            source text NOT NULL, -- the source database, as in `_tidemark_runs`
            slot text NOT NULL, -- the slot's name
            system_identifier text NOT NULL, -- of the source's server
            timeline integer NOT NULL, -- of the source's server
            position pg_lsn NOT NULL, -- all transactions that committed before it are here
            committed_at timestamptz, -- when the last of them committed, by the source's clock
            loaded_at timestamptz NOT NULL DEFAULT now(), -- when the row was last written
            PRIMARY KEY (source, slot)
        )
        """,
        """
        ALTER TABLE {}
            ADD COLUMN history jsonb NOT NULL DEFAULT '[]' -- the timelines before, with the positions where they ended
        """,
        """
        ALTER TABLE {}
            ADD COLUMN retained_bytes bigint, -- the WAL that the source kept for the slot when a run looked at it
            ADD COLUMN behind_bytes bigint, -- what of that came after the position
            ADD COLUMN measured_at timestamptz -- when the warehouse got to know that
        """,
    ),
)


@dataclass(frozen=True)
class SlotTable:
    """The table of slots in one schema."""

    schema: str

    def ensure(self, connection: psycopg.Connection[Any]) -> None:
        """Create the table, or migrate it to the current version."""
        TABLE.ensure(connection, self.schema)

    def position(
        self, connection: psycopg.Connection[Any], source: str, cut: Cut, complete: Sequence[str]
    ) -> str | None:
        """Return up to where the warehouse has the slot's changes; None if the cut does not go on from there.

        Args:
            complete: the streams that must go on from there. The others are loaded from their beginning.

        Raises:
            SlotAheadError: the cut begins after it, or is of another server or timeline.
        """
        row = connection.execute(
            sql.SQL(
                "SELECT position::text, system_identifier, timeline, history, position < %s::pg_lsn FROM {} "
                "WHERE source = %s AND slot = %s FOR UPDATE"
            ).format(TABLE.in_statement(self.schema)),
            [cut.start, source, cut.slot],
        ).fetchone()
        position, system, timeline, history, is_behind = row or (None, "", 0, [], True)
        is_other = row is not None and not cut.origin.goes_on_from(str(position), _origin(system, timeline, history))
        if not (is_behind or is_other):
            return str(position)
        if complete and is_other:
            msg = (
                f"The warehouse followed the slot {cut.slot} up to {position} of the server {system}, timeline "
                f"{timeline}, and it is now of {cut.system}, timeline {cut.timeline}, which does not have that "
                "position in its history: the source was restored, or a standby was promoted that lacked it. "
                f"{_AGAIN}"
            )
            raise SlotAheadError(msg)
        if complete:
            msg = (
                f"The slot {cut.slot} begins at {cut.start}, and the warehouse has its changes up to "
                f"{position or 'no position'}: those between would be missed. Was the slot made again, or the "
                f"warehouse restored? {_AGAIN}"
            )
            raise SlotAheadError(msg)
        self._forget(connection, source, cut.slot)
        return None

    def reached(self, connection: psycopg.Connection[Any], source: str, cut: Cut) -> None:
        """Note that the warehouse has all changes up to the cut's end."""
        retained, behind = cut.wal or (None, None)
        connection.execute(
            sql.SQL(
                "INSERT INTO {} AS slots (source, slot, system_identifier, timeline, history, position, committed_at, "
                "retained_bytes, behind_bytes, measured_at) "
                "VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, CASE WHEN %s THEN now() END) "
                "ON CONFLICT (source, slot) DO UPDATE SET "
                "position = greatest(slots.position, excluded.position), timeline = excluded.timeline, "
                "history = excluded.history, committed_at = excluded.committed_at, loaded_at = now(), "
                "retained_bytes = coalesce(excluded.retained_bytes, slots.retained_bytes), "
                "behind_bytes = coalesce(excluded.behind_bytes, slots.behind_bytes), "
                "measured_at = coalesce(excluded.measured_at, slots.measured_at)"
            ).format(TABLE.in_statement(self.schema)),
            [
                *(source, cut.slot, cut.system, cut.timeline, json.dumps(cut.history), cut.end, cut.at),
                *(retained, behind, cut.wal is not None),
            ],
        )

    def found(self, connection: psycopg.Connection[Any], source: str, slot: str) -> tuple[str, LogOrigin] | None:
        """Return up to where the warehouse has a slot's changes, and of which log; None if it has none."""
        row = connection.execute(
            sql.SQL(
                "SELECT position::text, system_identifier, timeline, history FROM {} WHERE source = %s AND slot = %s"
            ).format(TABLE.in_statement(self.schema)),
            [source, slot],
        ).fetchone()
        return row and (str(row[0]), _origin(*row[1:]))

    def begin(
        self, connection: psycopg.Connection[Any], source: str, slot: str, origin: LogOrigin, position: str
    ) -> None:
        """Note that streams follow a slot from its position on, whatever was there before."""
        self._forget(connection, source, slot)
        connection.execute(
            sql.SQL(
                "INSERT INTO {} (source, slot, system_identifier, timeline, history, position) "
                "VALUES (%s, %s, %s, %s, %s, %s)"
            ).format(TABLE.in_statement(self.schema)),
            [source, slot, origin.system, origin.timeline, json.dumps(origin.history), position],
        )

    def _forget(self, connection: psycopg.Connection[Any], source: str, slot: str) -> None:
        connection.execute(
            sql.SQL("DELETE FROM {} WHERE source = %s AND slot = %s").format(TABLE.in_statement(self.schema)),
            [source, slot],
        )


def _origin(system: str, timeline: int, history: list[list[Any]]) -> LogOrigin:
    return LogOrigin(system, timeline, tuple((number, end) for number, end in history))
