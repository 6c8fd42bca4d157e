"""The load of a stream that is read whole: its rows replace those of its table once they are all there."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from psycopg import sql

from singer_postgres.core.errors import ChunkLostError, WarehouseAlteredError
from singer_postgres.core.warehouse import late_key, merge, tables
from singer_postgres.core.warehouse.row_counts import RowCounts
from singer_postgres.target.full_stages import FullStages
from singer_postgres.target.stream_load import StreamLoad

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import psycopg

    from singer_postgres.core.wire import BatchOrigin, Chunk, EmptyRange, StreamEnd, Table
    from singer_postgres.target.stream_load import LoadRun

    Connection = psycopg.Connection[Any]


class FullLoad(StreamLoad):
    """A FULL_TABLE stream whose chunks are being loaded.

    They go into a table beside the stream's own. Once the stream has ended, one transaction replaces the old rows by
    them.
    """

    is_full = True

    def __init__(self, run: LoadRun, stream: str, table: Table) -> None:
        super().__init__(run, stream, table)
        self._full_stages = FullStages(self.schema, stream, f"{run.id} {run.sync_started_at}")

    def _opened(self, connection: Connection) -> None:
        self._full_stages.drop(connection)

    def _before_chunk(self, connection: Connection, chunk: Chunk | EmptyRange) -> None:
        # other workers are about to use the stage
        self._full_stages.of(connection, chunk.snapshot, self._types)

    def _write(self, connection: Connection, chunk: Chunk, path: Path, *, my_turn: Callable[[], None]) -> RowCounts:  # noqa: ARG002
        stage = self._full_stages.of(connection, chunk.snapshot, self._types)
        return RowCounts(self._copy(connection, stage, chunk, path))

    def _before_end(self, connection: Connection, origin: StreamEnd) -> None:
        # a stream without rows has none yet
        self._full_stages.of(connection, origin.snapshot, self._types)

    def _end(self, connection: Connection, origin: StreamEnd) -> RowCounts:
        full_stage = self._full_stages.of(connection, origin.snapshot, self._types)
        with self.effort.timed("merging"):
            written = self._replace(connection, origin, full_stage)
        # the chunks' transactions have only counted them in the history
        self.history.totals.add_rows(connection, RowCounts(read=self._rows[origin.snapshot]))
        return written

    def _tidy(self, connection: Connection) -> None:
        self._full_stages.drop(connection)
        super()._tidy(connection)

    def _replace(self, connection: Connection, origin: BatchOrigin, full_stage: sql.Identifier) -> RowCounts:
        """Replace the table's rows by the stage's. Equal rows stay untouched.

        Raises:
            SingerPostgresError: the server crashed, which empties unlogged tables such as the stage.
        """
        row = connection.execute(sql.SQL("SELECT count(*) FROM {}").format(full_stage)).fetchone()
        if row != (self._rows[origin.snapshot],):
            msg = (
                f"The warehouse lost staged rows of {self.stream}, probably because its server crashed; "
                "the table is unchanged. Run this again."
            )
            raise ChunkLostError(msg)
        stamp, key = self._stamp(origin), self.table.key
        connection.execute(sql.SQL("ANALYZE {}").format(full_stage))
        written, stage = RowCounts(), self._cast(full_stage)
        only_adds = (
            self._routes.lacks_key and not self._triggers and tables.is_empty(connection, self.schema, self.table.name)
        )
        if only_adds:
            written = self._merge(connection, stage, stamp, key=())
        if self._routes.lacks_key:
            late_key.build(connection, self.schema, self.table)
        if only_adds:
            return written
        if key:
            self._refuse_other_values(connection, stage)
            delete = merge.delete_missing(stage, self._target, key=key, hard=self._run.hard_delete)
            deleted = connection.execute(delete).rowcount
            if self._triggers and connection.execute(delete).rowcount:
                raise WarehouseAlteredError(self._triggered("deleted"))
            written = replace(self._merge(connection, stage, stamp, key=key), deleted=deleted)
        else:
            row = connection.execute(merge.same_rows(stage, self._target, columns=self._columns)).fetchone()
            if not row or not row[0]:
                deleted = connection.execute(sql.SQL("DELETE FROM {}").format(self._target)).rowcount
                written = replace(self._merge(connection, stage, stamp, key=()), deleted=deleted)
                row = (
                    self._triggers
                    and connection.execute(merge.same_rows(stage, self._target, columns=self._columns)).fetchone()
                )
                if row and not row[0]:
                    raise WarehouseAlteredError(self._triggered("written as they are"))
        return written
