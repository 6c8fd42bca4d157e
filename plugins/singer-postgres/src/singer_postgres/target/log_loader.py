"""Loads the changes of LOG_BASED streams: stages them as they come, and merges all streams of a cut in one transaction.

With the rows, that transaction commits the position that they reach. A reader sees the source as it was at one position
of its log; and a position that was committed once is never applied again.

A stream whose first load is not complete is not in the cut. Its changes wait in a table of their own, and are merged
once the log has passed the position of the load's last snapshot.
"""

from __future__ import annotations

import logging
import queue
import signal
import threading
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import psycopg
from psycopg import sql

from singer_postgres.core import driver_errors
from singer_postgres.core.errors import ChunkLostError, SingerPostgresError
from singer_postgres.core.lsn import lsn_of
from singer_postgres.core.warehouse import tables
from singer_postgres.core.warehouse.followed_streams import FollowedStreams
from singer_postgres.core.warehouse.row_counts import RowCounts
from singer_postgres.core.warehouse.slot_table import SlotTable
from singer_postgres.core.warehouse.state_table import StateTable
from singer_postgres.core.wire import Changes, Cut
from singer_postgres.target import chunk_copy
from singer_postgres.target.acknowledgements import LifeSigns, acknowledge
from singer_postgres.target.full_stages import short_digest
from singer_postgres.target.staged_changes import PendingChanges, StagedChanges

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from singer_postgres.core.warehouse.connections import WarehouseConnector
    from singer_postgres.target.log_stream_load import LogStreamLoad

    Connection = psycopg.Connection[Any]

_LOGGER = logging.getLogger("target-postgres")
_TICK_S = 0.5


@dataclass(frozen=True)
class LogJob:
    """A file of changes, or a cut, in their order of arrival."""

    number: int
    load: LogStreamLoad
    batch: Changes | Cut
    path: Path | None
    described: dict[str, LogStreamLoad] = field(default_factory=dict)
    """For a cut: each stream by its latest description."""
    reading: dict[str, LogStreamLoad] = field(default_factory=dict)
    """For a cut: the first loads of this run."""


class LogLoader:
    """Loads the changes of one run, in one thread, on one connection."""

    def __init__(
        self,
        warehouse: WarehouseConnector,
        *,
        done: Callable[[int], None],
        counted: Callable[..., None],
        failed: Callable[[LogStreamLoad, Exception], bool],
        has_failed: Callable[[str], bool],
    ) -> None:
        """Start with nothing staged.

        Args:
            done: called for each file that is staged, and for each cut that is committed.
            counted: called for each stream of a committed cut, with its load, its rows, and `last` for the run's last.
            failed: called for a stream that can't be merged; returns whether the others go on.
            has_failed: tells whether a stream has failed; it is not in later cuts.
        """
        self._warehouse = warehouse
        self._done, self._counted, self._failed, self._has_failed = done, counted, failed, has_failed
        self._jobs: queue.Queue[LogJob | None] = queue.Queue()
        self._thread: threading.Thread | None = None
        self._error: Exception | None = None
        self._stopped, self._began = threading.Event(), threading.Event()
        self._staged: dict[str, list[StagedChanges]] = {}
        self._made: dict[LogStreamLoad, sql.Identifier] = {}
        self._open: set[LogStreamLoad] = set()
        self._connection: Connection | None = None
        self._is_ready = False
        self._life = LifeSigns(warehouse)

    def submit(self, job: LogJob) -> None:
        """Queue a file of changes, or a cut.

        Raises:
            SingerPostgresError, psycopg.Error: an earlier one could not be loaded.
        """
        self.raise_error()
        self._jobs.put(job)
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, name="log-loader", daemon=True)
            self._thread.start()

    def wait_until_begun(self) -> None:
        """Wait until the first cut is committed, which says where the changes of a first load begin.

        Raises:
            SingerPostgresError, psycopg.Error: it could not be committed.
        """
        while not self._began.wait(_TICK_S):
            self.raise_error()

    def wait(self) -> None:
        """Wait until everything is loaded.

        Raises:
            SingerPostgresError, psycopg.Error: something could not be loaded.
        """
        if self._thread is not None:
            self._jobs.put(None)
            self._thread.join()
        self.raise_error()

    def raise_error(self) -> None:
        """Raise the thread's error, if there was one."""
        if self._error is not None:
            raise self._error

    def stop(self) -> None:
        """End the thread's waits."""
        self._stopped.set()

    # the thread

    def _work(self) -> None:
        try:
            while (job := self._jobs.get()) is not None:
                if isinstance(job.batch, Changes):
                    self._stage(job, job.batch)
                    continue
                self._life.fifo = job.batch.acknowledge
                with self._life.during(self._connected()):
                    self._cut(job, job.batch)
                    self._expire(job, job.batch)
        except Exception as error:  # noqa: BLE001 - the main thread reports it
            self._error = driver_errors.wrap_driver_error(
                error,
                "Loading changes of the log",
                "",
                side="warehouse",
                of_stream=False,
                role=self._warehouse.parameters().get("user"),
            )
            # it may be waiting for input that the tap can't write before the disk has room
            signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGUSR1)
        finally:
            if self._connection is not None:
                self._connection.close()

    def _connected(self) -> Connection:
        if self._connection is None:
            self._connection = self._warehouse.connect_once()
        return self._connection

    def _stage(self, job: LogJob, changes: Changes) -> None:
        """Copy a file into a temporary table, in the cut's transaction, and free its disk."""
        assert job.path
        if self._has_failed(job.load.stream):
            job.path.unlink(missing_ok=True)
            self._done(job.number)
            return
        connection = self._connected()
        if connection.info.transaction_status == psycopg.pq.TransactionStatus.IDLE:
            connection.execute("BEGIN")
        stage = self._made.get(job.load)
        if stage is None:
            name = f"log_{len(self._made)}_{short_digest(job.load.stream)}"
            columns = job.load.log_stage(connection)
            connection.execute(
                sql.SQL("CREATE TEMPORARY TABLE {} ({}) ON COMMIT DELETE ROWS").format(
                    sql.Identifier(name), tables.definitions(columns)
                )
            )
            stage = self._made[job.load] = sql.Identifier("pg_temp", name)
        shapes = self._staged.setdefault(job.load.stream, [])
        if not shapes or shapes[-1].load is not job.load:
            shapes.append(StagedChanges(job.load, stage))
        staged = shapes[-1]
        with staged.load.effort.timed("copying"):
            staged.rows += chunk_copy.copy(connection, job.path, changes, staged.stage, binary=changes.binary)
        staged.bytes += changes.bytes
        staged.has_unchanged |= changes.has_unchanged
        staged.has_moved |= changes.has_moved
        staged.has_truncated |= changes.has_truncated
        job.path.unlink(missing_ok=True)
        self._done(job.number)

    def _cut(self, job: LogJob, cut: Cut) -> None:
        """Merge all staged changes, and commit them with the cut's position."""
        for stream in cut.loaded:
            self._wait_for_load(job.reading[stream])
        self._open_streams(job, cut)
        connection = self._connected()
        schema, source = job.load.schema, job.load.table.source
        slots, followed = SlotTable(schema), FollowedStreams(schema)
        if connection.info.transaction_status == psycopg.pq.TransactionStatus.IDLE:
            connection.execute("BEGIN")
        # Rows of the tables are looked up by their keys. An empty table would be scanned once for each change, and is
        # no longer empty then; and a batch is small beside a large one.
        connection.execute("SET LOCAL enable_seqscan = off; SET LOCAL jit = off")
        counts: dict[LogStreamLoad, RowCounts] = {}
        complete = [stream for stream in self._in(cut) if stream not in {*cut.loading, *cut.loaded}]
        position = slots.position(connection, source, cut, complete)
        if position is None:
            for stream in self._in(cut):
                load = job.described[stream]
                followed.load_again(connection, stream, load.table)
                PendingChanges(connection, schema, stream).drop()
        for stream in self._in(cut):
            load, shapes = job.described[stream], self._staged.get(stream, [])
            with self._one_stream(load), connection.transaction():
                if stream in cut.loading:
                    followed.follow(connection, stream, load.table, slot=cut.slot, is_loading=True)
                    PendingChanges(connection, schema, stream).keep(shapes)
                else:
                    counts[load] = self._merge(connection, job, cut, stream, position)
        why = f"a run went on from {cut.start} without it"
        for stream in followed.leave(connection, source, cut.slot, why=why, but=self._in(cut)):
            PendingChanges(connection, schema, stream).drop()
            back = f"If it is still LOG_BASED, `tidemark slots repair {stream}` brings it back"
            _LOGGER.warning("%s no longer follows the slot %s. %s.", stream, cut.slot, back)
        for stream, why in cut.doubts.items():
            job.described[stream].doubted(connection, why)
        slots.reached(connection, source, cut)
        connection.execute("COMMIT")
        self._staged.clear()
        acknowledge(cut)
        for load, written in counts.items():
            self._counted(load, written, last=cut.last)
        self._done(job.number)
        self._began.set()

    def _expire(self, job: LogJob, cut: Cut) -> None:
        """Delete what the histories of changes no longer keep, once the run's last cut is committed."""
        for stream in self._in(cut) if cut.last else ():
            job.described[stream].expire(self._connected(), cut)

    def _in(self, cut: Cut) -> list[str]:
        return [stream for stream in cut.streams if not self._has_failed(stream)]

    @contextmanager
    def _one_stream(self, load: LogStreamLoad) -> Iterator[None]:
        """Let a stream that fails leave the cut, which goes on without it."""
        try:
            yield
        except (psycopg.Error, SingerPostgresError) as error:
            named = driver_errors.wrap_driver_error(
                error,
                f"Loading {load.stream} into {load.schema}.{load.table.name}",
                "",
                side="warehouse",
                of_stream=True,
                role=self._warehouse.parameters().get("user"),
            )
            if not driver_errors.ends_one_stream(error, writing=True) or not self._failed(load, named):
                raise

    def _wait_for_load(self, load: LogStreamLoad) -> None:
        while not load.finished.wait(_TICK_S) and not self._has_failed(load.stream):
            if self._stopped.is_set():
                msg = f"The first load of {load.stream} did not end."
                raise ChunkLostError(msg)

    def _open_streams(self, job: LogJob, cut: Cut) -> None:
        """Prepare the tables of all streams in the cut, on a connection of its own, because tables may be altered."""
        waiting = []
        for stream in self._in(cut):
            if stream not in cut.loading:
                staged = [each.load for each in self._staged.get(stream, [])] if stream not in cut.loaded else []
                waiting += [load for load in (*staged, job.described[stream]) if load not in self._open]
        if not waiting and self._is_ready:
            return
        with self._warehouse.connect_once() as connection, job.load.opening:
            tables.ensure_schema(connection, job.load.schema)
            StateTable(job.load.schema).ensure(connection)
            SlotTable(job.load.schema).ensure(connection)
            self._is_ready = True
            for load in dict.fromkeys(waiting):
                with self._one_stream(load):
                    load.open_log(connection, cut)
                self._open.add(load)

    def _merge(self, connection: Connection, job: LogJob, cut: Cut, stream: str, position: str | None) -> RowCounts:
        """Merge a stream's changes into its table.

        Args:
            position: what the table has already.
        """
        load, staged = job.described[stream], self._staged.get(stream, [])
        pending = PendingChanges(connection, load.schema, load.stream)
        bytes_ = sum(each.bytes for each in staged)
        if load.stream in cut.loaded:
            staged, position = pending.with_staged(load, staged), None
        written, doubt = RowCounts(), None
        for each in staged:
            with load.effort.timed("merging"):
                merge = each.load.log_merge(connection, each.stage, load)
                counts = merge.merge(
                    connection,
                    load.log_stamp(cut),
                    after=None if position is None else lsn_of(position),
                    has_unchanged=each.has_unchanged,
                    has_moved=each.has_moved,
                    has_truncated=each.has_truncated,
                    is_first_load=stream in cut.loaded,
                )
            doubt = doubt or merge.doubt
            written = RowCounts(
                written.read + each.rows,
                written.inserted + counts.inserted,
                written.updated + counts.updated,
                written.deleted + counts.deleted,
            )
        if load.stream in cut.loaded:
            pending.drop()
        load.merged(connection, cut, written, bytes_=bytes_)
        if doubt:
            load.doubted(connection, doubt)
        return written
