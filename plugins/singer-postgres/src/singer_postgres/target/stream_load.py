"""The load of one stream from chunks: where its rows go, and what happens at its end."""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from psycopg import errors, sql

from singer_postgres.core import session
from singer_postgres.core.errors import ChunkLostError, WarehouseAlteredError
from singer_postgres.core.warehouse import (
    brief_locks,
    copy_stamp,
    late_key,
    manual_changes,
    merge,
    merge_plan,
    partitions,
    schema_changes,
    state_ahead,
    tables,
)
from singer_postgres.core.warehouse.load_parts import LoadParts
from singer_postgres.core.warehouse.metadata_columns import Stamp
from singer_postgres.core.warehouse.row_counts import RowCounts
from singer_postgres.core.warehouse.run_history import StreamRun
from singer_postgres.core.warehouse.state_table import StateTable
from singer_postgres.core.wire import Chunk, refuse_own_name
from singer_postgres.target import chunk_copy, load_stage
from singer_postgres.target.fresh_pages import FreshPages
from singer_postgres.target.load_effort import LoadEffort
from singer_postgres.target.load_stage import LoadStage
from singer_postgres.target.routes import Route, Routes

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    import psycopg

    from singer_postgres.core.warehouse.connections import WarehouseConnector
    from singer_postgres.core.warehouse.partitions import Partitions
    from singer_postgres.core.warehouse.run_lock import RunLock
    from singer_postgres.core.warehouse.schema_changes import Change
    from singer_postgres.core.warehouse.tables import EnsuredTable
    from singer_postgres.core.wire import BatchOrigin, BlockRange, EmptyRange, StreamEnd, Table

    Connection = psycopg.Connection[Any]

_LOGGER = logging.getLogger("target-postgres")


@dataclass(frozen=True)
class LoadRun:
    """The parts of a load that all streams of a run share."""

    warehouse: WarehouseConnector
    lock: RunLock
    id: str
    sync_started_at: int
    hard_delete: bool
    history_days: float
    change_history_days: float
    raw_partitions: Mapping[str, Any]
    opening: threading.Lock


@dataclass
class Attempt:
    """A transaction in progress. Its id tells whether it committed, even if the connection broke meanwhile.

    Attributes:
        xid: the transaction's id, once it is about to commit.
        written: the rows that it writes.
    """

    xid: str | None = None
    written: RowCounts = field(default_factory=RowCounts)


class StreamLoad:
    """A stream whose chunks are being loaded.

    Each chunk goes into the table in a transaction of its own. In a first load, the rows are copied straight into the
    table, which gets its key once they are all there. If the table has its key already, only the rows of the first
    snapshot are, and the table must be empty. All other rows go through a temporary table, and most by a merge.
    """

    is_full = False
    """The stream's rows replace all others."""
    is_part = False
    """The run loads a part of the stream, together with others."""

    def __init__(self, run: LoadRun, stream: str, table: Table) -> None:
        self.stream = stream
        self.table = table
        self._owner = run.id
        """Who may commit rows of the stream; see `StateTable.claim_for_run`."""
        self.schema = run.warehouse.schema or table.schema
        self.history = StreamRun(
            self.schema,
            table.source,
            stream,
            run.id,
            table.name,
            run.history_days,
            run.sync_started_at,
            self.is_part,
        )
        self._run = run
        self._state = StateTable(self.schema)
        self._parts = LoadParts(self.schema, table.source)
        self._columns = tables.data_columns(table)
        self._target = sql.Identifier(self.schema, table.name)
        self.opening = run.opening
        """One stream opens at a time: two sessions that create the same schema at once would fail."""
        self.opened, self.finished = threading.Event(), threading.Event()
        self._routes = Routes()
        self._key_first = False
        """The table is to get its key before any row is loaded."""
        self._stage = LoadStage(stream)
        self._fresh_pages = FreshPages(self._target)
        self._bookmark: str | None = None
        self._types: dict[str, str] = {}
        self._ensured: EnsuredTable | None = None
        self.stale_key: str | None = None
        """The table's primary key, if the stream no longer has a key."""
        self._rows: Counter[str] = Counter()
        """The number of loaded rows, by snapshot."""
        self.effort = LoadEffort()

    @property
    def _triggers(self) -> tuple[str, ...]:
        return self._ensured.triggers if self._ensured else ()

    @property
    def _casts(self) -> Mapping[str, str]:
        return self._ensured.casts if self._ensured else {}

    @property
    def _partitioning(self) -> Mapping[str, Any] | None:
        return self._run.raw_partitions.get(self.stream)

    @property
    def _partitions(self) -> Partitions | None:
        return self._ensured.partitions if self._ensured else None

    def _make_room(self, connection: Connection, stage: sql.Composable) -> sql.Composable | None:
        return partitions.make_room(connection, self.schema, self.table.name, stage, partitions=self._partitions)

    def open(self, connection: Connection, origin: BatchOrigin) -> None:
        """Prepare the table for the stream's first chunk of this run.

        Raises:
            BusyError: another run loads the table.
            SingerPostgresError: the table can't hold the rows, or earlier rows are missing from it.
        """
        refuse_own_name(self.stream, self.table.name)
        self._run.lock.take(self.stream, self.schema, self.table.name, shared=self.is_part)
        tables.ensure_schema(connection, self.schema)
        self._state.ensure(connection)
        schema_changes.TABLE.ensure(connection, self.schema)
        self.history.ensure(connection)
        changes = brief_locks.with_brief_locks(connection, lambda: self._open(connection, origin), table=self._target)
        for change in changes:
            _LOGGER.warning("%s.%s: %s", self.schema, self.table.name, change)
        self._opened(connection)

    def _opened(self, connection: Connection) -> None:
        """Do what comes before the first chunk, without the locks of `_open`."""
        if self._routes.lacks_key and self._key_first:
            self._build_key(connection)
        if not (self._routes.lacks_key or self._routes.has_defaults):
            tables.ensure_xid_index(connection, self.schema, self.table.name)

    def _open(self, connection: Connection, origin: BatchOrigin) -> Sequence[Change]:
        self._types = tables.types_here(connection, self.table)
        before = self._state.columns(connection, self.stream, self.table)
        is_first = self.is_full or (origin.start is None and not origin.backfill)
        whole = is_first and not (origin.resumed or self.is_part)
        pending = self._state.key_is_pending(connection, self.stream, self.table)
        self._ensured = tables.ensure_table(
            connection,
            self.schema,
            self.table,
            before=before,
            whole=whole,
            key_later=is_first,
            key_pending=pending,
            partitioning=self._partitioning,
        )
        # this may be another attempt, and the first one was rolled back
        self._routes, self._key_first = Routes(lacks_key=self._ensured.lacks_key), False
        changes = self._ensured.changes
        if not self.table.key:
            self.stale_key = manual_changes.primary_key(connection, self.schema, self.table.name)
        empty = tables.is_empty(connection, self.schema, self.table.name)
        self._bookmark = state_ahead.refuse(self._state, connection, self.stream, self.table, origin, empty=empty)
        self._begin(connection, origin, empty=empty)
        self._state.claim_for_run(
            connection,
            self.stream,
            self.table,
            run_id=self._owner,
            columns=self._ensured.columns,
            lsn=origin.lsn,
        )
        if self._routes.lacks_key and not pending:
            self._state.set_key_pending(connection, self.stream, self.table, pending=True)
        bookmark = self._bookmark if origin.backfill else origin.start
        self.history.begin(connection, bookmark=bookmark)
        schema_changes.record(connection, self.history, changes)
        if is_first and not self.is_full:
            self._prepare_first_load(connection, origin, empty=empty and whole, whole=whole)
        return changes

    def _begin(self, connection: Connection, origin: BatchOrigin, *, empty: bool) -> None:  # noqa: ARG002 - for parts
        """Prepare to own the stream: what several runs had begun to load of it ends."""
        self._parts.close(connection, self.stream)

    def _prepare_first_load(self, connection: Connection, origin: BatchOrigin, *, empty: bool, whole: bool) -> None:
        """Decide how the rows of a first load get into the table.

        Args:
            empty: the table has no rows, and this run alone loads it.
            whole: no other run has begun this load.
        """
        if whole:
            self._state.begin(connection, self.stream, self.table)
        # a merge tells whether triggers or columns of another's name lose a value; and of a load that begins again
        # most rows would be there twice
        self._key_first = bool(self._triggers or (self._ensured and self._ensured.watched)) or (whole and not empty)
        lacks_key, is_merged = self._routes.lacks_key, bool(self._casts) or self._key_first
        self._routes = Routes.of_first_load(origin.snapshot, lacks_key=lacks_key, empty=empty, merged=is_merged)
        # the partitions of a table in ranges are made by what is in the stage
        is_in_ranges = self._partitions is not None and self._partitions.strategy == "r"
        if is_merged or is_in_ranges or self._routes.of(origin.snapshot) is Route.MERGE:
            return
        try:
            with connection.transaction():
                tables.set_defaults(connection, self.schema, self.table.name)
        except errors.LockNotAvailable:
            # another session reads the table, and may do so for long
            return
        self._routes = replace(self._routes, has_defaults=True)

    def load(
        self,
        connection: Connection,
        chunk: Chunk | EmptyRange,
        path: Path | None,
        *,
        my_turn: Callable[[], None],
        attempt: Attempt,
    ) -> None:
        """Load one chunk, in one transaction.

        Args:
            my_turn: returns once the chunks before this one are committed. Two chunks can contain the same key. The
                one that waits for the other's commit must be the later one.
            attempt: gets the transaction's id before the commit.

        Raises:
            SingerPostgresError, psycopg.Error: the chunk can't be loaded. None of it is committed, unless the
                connection was lost.
        """
        self._before_chunk(connection, chunk)
        if self._routes.lacks_key and isinstance(chunk, Chunk) and chunk.again:
            # most of its rows are there, and would have to be removed
            my_turn()
            self._build_key(connection)
        written = RowCounts()
        is_copied = self._routes.of(chunk.snapshot) is Route.COPY
        with self._fresh_pages.appended(connection) if is_copied else nullcontext(), connection.transaction():
            if isinstance(chunk, Chunk) and path is not None:
                if is_copied:
                    copy_stamp.set_for_transaction(connection, self._stamp(chunk))
                    rows = self._copy(connection, self._target, chunk, path)
                    written = RowCounts(rows, inserted=rows)
                else:
                    written = self._write(connection, chunk, path, my_turn=my_turn)
            my_turn()
            xid = self._state.assert_owner(connection, self.stream, self.table, run_id=self._owner)
            if chunk.blocks is not None:
                self._add_range(connection, chunk.blocks, has_rows=path is not None)
            bytes_ = chunk.bytes if isinstance(chunk, Chunk) else 0
            self.history.count(connection, written, bytes_=bytes_, staged=self.is_full)
            attempt.written, attempt.xid = written, xid

    def _before_chunk(self, connection: Connection, chunk: Chunk | EmptyRange) -> None:
        """Do what comes before the transaction of a chunk."""

    def _write(self, connection: Connection, chunk: Chunk, path: Path, *, my_turn: Callable[[], None]) -> RowCounts:
        """Write a chunk whose rows can't be copied straight into the table."""
        stage = self._stage.of(connection, self._types)
        rows = self._copy(connection, stage, chunk, path)
        my_turn()
        with self.effort.timed("merging"):
            # a chunk before this one may have had the key built
            only_adds = self._routes.of(chunk.snapshot) is not Route.MERGE
            staged, key = self._cast(stage), () if only_adds else self.table.key
            self._refuse_other_values(connection, staged)
            with merge_plan.rows_looked_up(connection, stage, self._target) if key else nullcontext():
                written = self._merge(connection, staged, self._stamp(chunk), key=key)
            return replace(written, read=rows)

    def _add_range(self, connection: Connection, blocks: BlockRange, *, has_rows: bool) -> None:
        self._state.add_range(connection, self.stream, self.table, blocks, has_rows=has_rows)

    def confirm(self, connection: Connection) -> None:
        """Check that no other run has begun to load the stream.

        Raises:
            RunError: another run has begun.
        """
        with connection.transaction():
            self._state.assert_owner(connection, self.stream, self.table, run_id=self._owner)

    def committed(self, origin: BatchOrigin, written: RowCounts) -> None:
        """Count the rows that a committed chunk wrote."""
        self._rows[origin.snapshot] += written.read

    def finish(self, connection: Connection, origin: StreamEnd, *, attempt: Attempt) -> None:
        """End the stream, once all its chunks are committed.

        Raises:
            SingerPostgresError, psycopg.Error: the stream can't be ended. Its table is unchanged, unless the
                connection was lost.
        """
        self._before_end(connection, origin)
        with connection.transaction():
            xid = self._state.assert_owner(connection, self.stream, self.table, run_id=self._owner)
            written = self._end(connection, origin)
            if origin.backfill or self.table.method == "LOG_BASED":
                # a LOG_BASED stream is complete when the changes since are merged, too
                has_rows = any(self._rows.values())
                self._state.backfilled(connection, self.stream, self.table, origin, has_rows=has_rows)
            else:
                has_rows = self._rows[origin.snapshot] > 0
                self._state.finish(connection, self.stream, self.table, origin, has_rows=has_rows)
            if self._ensured and self._ensured.watched:
                self._state.set_columns(connection, self.stream, self.table, self._ensured.columns_when_whole)
            if written != RowCounts():
                self.history.count(connection, written)
            work = self.effort.with_report(origin.report)
            # a backfill covers only a part of the stream, and so says nothing about its freshness
            bookmark, extracted_at = (
                (self._bookmark, None) if origin.backfill else (origin.end, origin.snapshot_at or None)
            )
            self.history.end(
                connection, bookmark=bookmark, extracted_at=extracted_at, work=work, whole=not origin.backfill
            )
            attempt.written, attempt.xid = written, xid
        self._tidy(connection)

    def _before_end(self, connection: Connection, origin: StreamEnd) -> None:  # noqa: ARG002 - for FULL_TABLE streams
        """Do what comes before the transaction that ends the stream."""
        if self._routes.lacks_key:
            self._build_key(connection)

    def _end(self, connection: Connection, origin: StreamEnd) -> RowCounts:  # noqa: ARG002 - for FULL_TABLE streams
        """Write what the end of the stream writes, within its transaction; return how many rows."""
        return RowCounts()

    def _tidy(self, connection: Connection) -> None:
        """Do work that the rows don't depend on, each step in a transaction of its own that holds no other locks."""
        tables.drop_defaults(connection, self.schema, self.table.name)
        if self._state.key_is_pending(connection, self.stream, self.table):
            brief_locks.if_possible(connection, lambda: self._constrain(connection), table=self._target)
        tables.ensure_xid_index(connection, self.schema, self.table.name)
        if self._routes.has_defaults:
            # otherwise PostgreSQL would plan the next models for a table of unknown size
            analyze = sql.SQL(f"{session.NO_STATEMENT_TIMEOUT}; ANALYZE {{}}").format(self._target)
            brief_locks.if_possible(connection, lambda: connection.execute(analyze), table=self._target)

    def _build_key(self, connection: Connection) -> None:
        """Build the table's key, and remove rows that a newer one replaces.

        Raises:
            SingerPostgresError, psycopg.Error: it could not be built. The table is unchanged.
        """
        with self.effort.timed("merging"), connection.transaction():
            self._state.assert_owner(connection, self.stream, self.table, run_id=self._owner)
            removed = late_key.build(connection, self.schema, self.table, any_may_stay=self._key_first)
            if removed:
                self.history.count(connection, RowCounts(deleted=removed))
        if removed:
            _LOGGER.info("Rows that were read twice are removed: stream=%s, rows=%d", self.stream, removed)
        self._routes = replace(self._routes, lacks_key=False)

    def _constrain(self, connection: Connection) -> None:
        late_key.constrain(connection, self.schema, self.table)
        self._state.set_key_pending(connection, self.stream, self.table, pending=False)

    def _stamp(self, origin: BatchOrigin) -> Stamp:
        return Stamp(origin.snapshot_at, round(time.time() * 1000), self._run.sync_started_at)

    def _copy(self, connection: Connection, into: sql.Composable, chunk: Chunk, path: Path) -> int:
        with_columns = sql.SQL("{} ({})").format(into, merge.names(self._columns))
        with self.effort.timed("copying"):
            rows = chunk_copy.copy(connection, path, chunk, with_columns, binary=self.table.binary)
        if chunk.rows not in {None, rows}:
            msg = f"Chunk {path} of {self.stream} gave {rows} rows, but the tap wrote {chunk.rows}."
            raise ChunkLostError(msg)
        return rows

    def _cast(self, stage: sql.Composable) -> sql.Composable:
        return load_stage.cast(stage, self._columns, self._casts)

    def _merge(self, connection: Connection, stage: sql.Composable, stamp: Stamp, *, key: Sequence[str]) -> RowCounts:
        """Merge the rows of a stage, with casts; without a key, add them all."""
        within = self._make_room(connection, stage)
        upsert = merge.upsert(stage, self._target, columns=self._columns, key=key, stamp=stamp, within=within)
        into = merge.Into(self._target, key, self._partitions is not None, within)
        row = connection.execute(merge.counted(upsert, into)).fetchone()
        assert row
        if self._triggers and key:
            left = merge.not_as_staged(stage, self._target, columns=self._columns, key=key, stamp=stamp)
            if connection.execute(left).fetchone() != (0,):
                raise WarehouseAlteredError(self._triggered("written as they are"))
        return RowCounts(inserted=row[0], updated=row[1])

    def _triggered(self, what: str) -> str:
        return manual_changes.triggered(self.schema, self.table.name, self._triggers, stream=self.stream, what=what)

    def _refuse_other_values(self, connection: Connection, stage: sql.Composable) -> None:
        if self._ensured and self._ensured.watched and self.table.key:
            tables.refuse_other_values(connection, self.schema, self.table, self._ensured, stage)
