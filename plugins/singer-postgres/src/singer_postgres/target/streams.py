"""One stream being loaded from chunks: where its rows go, and what its end does."""

from __future__ import annotations

import hashlib
import threading
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from psycopg import sql

from singer_postgres.errors import SingerPostgresError
from singer_postgres.target import files, merge, tables
from singer_postgres.target.bookmarks import StateTable
from singer_postgres.target.flushing import FlushingWriter
from singer_postgres.target.tables import Stamp
from singer_postgres.target.written import Written

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import psycopg

    from singer_postgres.target.connections import Warehouse
    from singer_postgres.target.runlock import RunLock
    from singer_postgres.wire import Chunk, Table

    Connection = psycopg.Connection[Any]


@dataclass(frozen=True)
class Run:
    """What the streams of one run have in common."""

    warehouse: Warehouse
    lock: RunLock
    sync_started_at: int
    hard_delete: bool


class StreamLoad:
    """A stream whose chunks are being loaded.

    An INCREMENTAL stream's chunks each go into its table in a transaction of their own: straight in as long as the
    table was empty when the run began and the rows are of one snapshot, by way of a stage otherwise. A FULL_TABLE
    stream's go into a table beside its own, which takes the place of the old rows in one transaction once the stream
    has ended.
    """

    def __init__(self, run: Run, stream: str, table: Table) -> None:
        self.stream = stream
        self.table = table
        self.schema = run.warehouse.schema or table.schema
        self._run = run
        self._state = StateTable(self.schema)
        self._columns = tables.data_columns(table)
        self._target = sql.Identifier(self.schema, table.name)
        digest = hashlib.sha256(stream.encode()).hexdigest()[:16]
        self._full_stage = sql.Identifier(self.schema, f"_tidemark_stage_{digest}")
        self.opened = threading.Event()
        self._direct: str | None = None
        self._staged_by: set[int] = set()
        self._types: dict[str, str] = {}
        self._as_text: set[str] = set()
        self._has_rows = False

    @property
    def _is_full(self) -> bool:
        return self.table.method == "FULL_TABLE"

    def open(self, connection: Connection, chunk: Chunk) -> None:
        """Make ready for the stream's first chunk of this run.

        Raises:
            BusyError: another run loads the table.
            SingerPostgresError: the table can't hold the rows, or lacks rows that come before them.
        """
        self._run.lock.take(self.stream, self.schema, self.table.name)
        tables.ensure_schema(connection, self.schema)
        self._state.ensure(connection)
        with connection.transaction():
            self._types = tables.types_here(connection, self.table)
            self._as_text = tables.ensure_table(connection, self.schema, self.table)
            empty = tables.is_empty(connection, self.schema, self.table.name)
            self._state.check(connection, self.stream, self.table, chunk, empty=empty)
            if self._is_full:
                self._make_full_stage(connection)
                return
            if chunk.start is None and not chunk.resumed:
                self._state.begin(connection, self.stream, self.table)
                if empty and not self._as_text:
                    self._direct = chunk.snapshot
                    tables.set_defaults(connection, self.schema, self.table.name, self._stamp(chunk))
                    return
            tables.ensure_xid_index(connection, self.schema, self.table.name)

    def load(self, connection: Connection, chunk: Chunk, path: Path | None, my_turn: Callable[[], None]) -> Written:
        """Load one chunk, in one transaction; return what became of its rows.

        Args:
            my_turn: returns once the chunks before this one are committed. Two chunks can hold one key, and whichever
                waits for the other to commit must be the later.

        Raises:
            SingerPostgresError, psycopg.Error: it can't be loaded; nothing of it was.
        """
        self._has_rows = self._has_rows or path is not None
        written = Written()
        with connection.transaction():
            if path is not None:
                if self._is_full:
                    rows = self._copy(connection, self._full_stage, chunk, path)
                    written = Written(rows)
                elif self._direct == chunk.snapshot:
                    rows = self._copy(connection, self._target, chunk, path)
                    written = Written(rows, inserted=rows)
                else:
                    stage = self._stage(connection)
                    rows = self._copy(connection, stage, chunk, path)
                    my_turn()
                    written = replace(self._merge(connection, stage, self._stamp(chunk)), read=rows)
            my_turn()
            self._run.lock.confirm(connection)
            if chunk.blocks is not None:
                self._state.loaded(connection, self.stream, self.table, chunk.blocks, has_rows=path is not None)
        return written

    def finish(self, connection: Connection, chunk: Chunk) -> Written:
        """End the stream, all of whose chunks are committed; return what became of rows that waited for this."""
        written = Written()
        with connection.transaction():
            if self._is_full:
                written = self._replace(connection, chunk)
            self._run.lock.confirm(connection)
            tables.drop_defaults(connection, self.schema, self.table.name)
            if self._direct is not None:
                tables.ensure_xid_index(connection, self.schema, self.table.name)
            self._state.finish(connection, self.stream, self.table, chunk, has_rows=self._has_rows)
        if self._direct is not None:
            # models built next would be planned for a table of unknown size
            connection.execute(sql.SQL("ANALYZE {}").format(self._target))
        return written

    def _stamp(self, chunk: Chunk) -> Stamp:
        return Stamp(chunk.snapshot_at, round(time.time() * 1000), self._run.sync_started_at)

    def _copy(self, connection: Connection, into: sql.Composable, chunk: Chunk, path: Path) -> int:
        form = sql.SQL("binary" if self.table.binary else "text")
        copy = sql.SQL("COPY {} ({}) FROM STDIN (FORMAT {})").format(into, merge.names(self._columns), form)
        with connection.cursor() as cursor:
            with cursor.copy(copy, writer=FlushingWriter(cursor)) as writer:
                for piece in files.pieces(path, chunk):
                    writer.write(piece)
            if chunk.rows not in {None, cursor.rowcount}:
                msg = f"Chunk {path} of {self.stream} gave {cursor.rowcount} rows, and the tap wrote {chunk.rows}."
                raise SingerPostgresError(msg)
            return cursor.rowcount

    def _stage(self, connection: Connection) -> sql.Composable:
        """Return an empty stage for this session."""
        digest = hashlib.sha256(self.stream.encode()).hexdigest()[:16]
        stage = sql.Identifier("pg_temp", f"stage_{digest}")
        if id(connection) not in self._staged_by:
            connection.execute(
                sql.SQL("CREATE TEMPORARY TABLE {} ({}) ON COMMIT DELETE ROWS").format(
                    sql.Identifier(f"stage_{digest}"), tables.definitions(self._types)
                )
            )
            self._staged_by.add(id(connection))
        return stage

    def _make_full_stage(self, connection: Connection) -> None:
        """Make the table that takes the stream's rows until it has ended; what a killed run left of it goes."""
        connection.execute(sql.SQL("DROP TABLE IF EXISTS {}").format(self._full_stage))
        connection.execute(
            sql.SQL("CREATE UNLOGGED TABLE {} ({})").format(self._full_stage, tables.definitions(self._types))
        )

    def _replace(self, connection: Connection, chunk: Chunk) -> Written:
        """Let the rows of the stage take the place of the table's. Those that are the same stay as they are."""
        stamp, key = self._stamp(chunk), self.table.key
        connection.execute(sql.SQL("ANALYZE {}").format(self._full_stage))
        written, stage = Written(), self._read_as_text(self._full_stage)
        if key:
            delete = merge.delete_missing(stage, self._target, key=key, hard=self._run.hard_delete)
            deleted = connection.execute(delete).rowcount
            written = replace(self._merge(connection, self._full_stage, stamp), deleted=deleted)
        else:
            row = connection.execute(merge.same_rows(stage, self._target, columns=self._columns)).fetchone()
            if not row or not row[0]:
                deleted = connection.execute(sql.SQL("DELETE FROM {}").format(self._target)).rowcount
                written = replace(self._merge(connection, self._full_stage, stamp), deleted=deleted)
        connection.execute(sql.SQL("DROP TABLE {}").format(self._full_stage))
        tables.ensure_xid_index(connection, self.schema, self.table.name)
        return written

    def _read_as_text(self, stage: sql.Composable) -> sql.Composable:
        """Return what to read the stage's rows from: columns that are text in the table come as text."""
        if not self._as_text:
            return stage
        fields = [
            sql.SQL("{0}::text AS {0}" if name in self._as_text else "{0}").format(sql.Identifier(name))
            for name in self._columns
        ]
        return sql.SQL("(SELECT {} FROM {})").format(sql.SQL(", ").join(fields), stage)

    def _merge(self, connection: Connection, stage: sql.Composable, stamp: Stamp) -> Written:
        stage = self._read_as_text(stage)
        upsert = merge.upsert(stage, self._target, columns=self._columns, key=self.table.key, stamp=stamp)
        row = connection.execute(merge.counted(upsert)).fetchone()
        assert row
        return Written(inserted=row[0], updated=row[1])
