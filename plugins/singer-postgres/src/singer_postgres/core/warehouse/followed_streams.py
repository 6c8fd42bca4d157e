"""The LOG_BASED streams in `_tidemark_state`: which slot each follows, and whether it is complete."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from singer_postgres.core.sql_compat import sql
from singer_postgres.core.warehouse.state_table import TABLE

if TYPE_CHECKING:
    from collections.abc import Sequence

    import psycopg

    from singer_postgres.core.wire import BlockRange, Table

    Connection = psycopg.Connection[Any]


def pending_table(schema: str, stream: str) -> sql.Identifier:
    """Return the table in which a stream's changes wait while it is loaded."""
    return sql.Identifier(schema, f"_tidemark_pending_{hashlib.sha256(stream.encode()).hexdigest()[:16]}")


@dataclass(frozen=True)
class FollowedStreams:
    """The LOG_BASED streams of one schema's state table."""

    schema: str

    def follows(self, connection: Connection, stream: str, table: Table, slot: str) -> bool:
        """Return whether the stream is complete up to the slot's position in `_tidemark_slots`."""
        row = connection.execute(
            self._sql("SELECT FROM {} WHERE source = %s AND stream = %s AND slot = %s AND NOT is_loading"),
            [table.source, stream, slot],
        ).fetchone()
        return row is not None

    def follow(  # noqa: PLR0913 - each argument has a name
        self,
        connection: Connection,
        stream: str,
        table: Table,
        *,
        slot: str,
        is_loading: bool,
        has_rows: bool = False,
    ) -> None:
        """Note which slot's changes come to the stream from now on.

        Args:
            is_loading: its first load is not complete.
        """
        connection.execute(
            self._sql(
                # the ranges of its first load stay: a killed run may not have reported that it is complete
                "INSERT INTO {} AS state (source, stream, table_name, slot, is_loading, has_rows) "
                "VALUES (%(source)s, %(stream)s, %(table)s, %(slot)s, %(is_loading)s, %(has_rows)s) "
                "ON CONFLICT (source, stream) DO UPDATE SET slot = excluded.slot, is_loading = excluded.is_loading, "
                "has_rows = state.has_rows OR excluded.has_rows, loaded_at = now() "
                "WHERE (state.slot, state.is_loading) IS DISTINCT FROM (excluded.slot, excluded.is_loading) "
                "OR (excluded.has_rows AND NOT state.has_rows)"
            ),
            {
                "source": table.source,
                "stream": stream,
                "table": table.name,
                "slot": slot,
                "is_loading": is_loading,
                "has_rows": has_rows,
            },
        )

    def load_again(self, connection: Connection, stream: str, table: Table) -> None:
        """Forget what an unfinished first load has loaded: changes since then are missing."""
        connection.execute(
            self._sql("UPDATE {} SET first_load = '[]' WHERE source = %s AND stream = %s"), [table.source, stream]
        )

    def leave(self, connection: Connection, source: str, slot: str, *, why: str, but: Sequence[str] = ()) -> list[str]:
        """Note that the slot goes on without some streams, which must be loaded again or repaired; return these.

        Args:
            why: the reason, for who repairs them.
            but: those that go on.
        """
        rows = connection.execute(
            self._sql(
                "UPDATE {} SET slot = NULL, is_loading = NULL, first_load = '[]', repair = %s "
                "WHERE source = %s AND slot = %s AND stream <> ALL (%s) RETURNING stream"
            ),
            [why, source, slot, list(but)],
        ).fetchall()
        return [stream for (stream,) in rows]

    def doubt(self, connection: Connection, source: str, stream: str, why: str | None) -> None:
        """Note why a stream's rows may differ from the source's, although it follows its log; None if they can't."""
        connection.execute(
            self._sql("UPDATE {} SET repair = %s WHERE source = %s AND stream = %s"), [why, source, stream]
        )

    def settle(self, connection: Connection, source: str, stream: str, why: str) -> None:
        """Note that a doubt is over, unless another has come meanwhile."""
        connection.execute(
            self._sql("UPDATE {} SET repair = NULL WHERE source = %s AND stream = %s AND repair = %s"),
            [source, stream, why],
        )

    def compared(  # noqa: PLR0913 - each argument has a name
        self, connection: Connection, source: str, stream: str, *, table: str, slot: str, blocks: Sequence[BlockRange]
    ) -> None:
        """Note that a stream was made equal to the source after the slot's position, as a first load would have.

        Args:
            table: its table's name.
            blocks: the ranges that a first load would have read.
        """
        connection.execute(
            self._sql(
                "INSERT INTO {} (source, stream, table_name, slot, is_loading, first_load, has_rows) "
                "VALUES (%(source)s, %(stream)s, %(table)s, %(slot)s, true, %(blocks)s, true) "
                "ON CONFLICT (source, stream) DO UPDATE SET slot = excluded.slot, is_loading = true, "
                "first_load = excluded.first_load, repair = NULL, loaded_at = now()"
            ),
            {
                "source": source,
                "stream": stream,
                "table": table,
                "slot": slot,
                "blocks": json.dumps([list(each) for each in blocks]),
            },
        )

    def to_repair(self, connection: Connection, source: str) -> dict[str, str]:
        """Return why streams must be compared with the source, by stream."""
        rows = connection.execute(
            self._sql("SELECT stream, repair FROM {} WHERE source = %s AND repair IS NOT NULL ORDER BY stream"),
            [source],
        ).fetchall()
        return dict(rows)

    def _sql(self, text: str) -> sql.Composed:
        return sql.SQL(text).format(TABLE.in_statement(self.schema))
