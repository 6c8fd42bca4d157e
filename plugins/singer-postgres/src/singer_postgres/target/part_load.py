"""The load of a part of a first load that several runs share. None of them ends the stream."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from singer_postgres.core.warehouse.row_counts import RowCounts
from singer_postgres.target.fresh_pages import FreshPages
from singer_postgres.target.stream_load import Attempt, StreamLoad

if TYPE_CHECKING:
    import psycopg

    from singer_postgres.core.load_part import LoadPart
    from singer_postgres.core.wire import BatchOrigin, BlockRange, StreamEnd, Table
    from singer_postgres.target.stream_load import LoadRun

    Connection = psycopg.Connection[Any]


class PartLoad(StreamLoad):
    """A part of a stream whose chunks are being loaded.

    A row can be in two parts, if it moved between their snapshots. As in any first load, the newest stays when the run
    that completes the stream builds the key.
    """

    is_part = True

    def __init__(self, run: LoadRun, stream: str, table: Table, part: LoadPart) -> None:
        super().__init__(run, stream, table)
        self._part = part
        self._owner = part.load_id
        self._fresh_pages = FreshPages(self._target, share=part.share)

    def _begin(self, connection: Connection, origin: BatchOrigin, *, empty: bool) -> None:
        # before it owns the stream, because the load may have ended
        self._parts.begin(connection, self.stream, self._part, run_id=self._run.id, watermark=origin.end, empty=empty)

    def _add_range(self, connection: Connection, blocks: BlockRange, *, has_rows: bool) -> None:
        self._parts.add_range(connection, self.stream, self._part, blocks, has_rows=has_rows)

    def finish(self, connection: Connection, origin: StreamEnd, *, attempt: Attempt) -> None:
        """End the part, once all its chunks are committed.

        Raises:
            SingerPostgresError, psycopg.Error: it can't be ended.
        """
        with connection.transaction():
            xid = self._state.assert_owner(connection, self.stream, self.table, run_id=self._owner)
            self._parts.finish(connection, self.stream, self._part)
            # a part says nothing about how fresh the stream is
            self.history.end(connection, work=self.effort.with_report(origin.report), whole=False)
            attempt.written, attempt.xid = RowCounts(), xid
