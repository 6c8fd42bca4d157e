"""Reads streams into chunk files, several ranges at once.

Workers take ranges in the order of the streams, each with a connection of its own and one short transaction a range,
under the snapshot that the stream's ranges share. They write files and put events; they know nothing of Singer. Whoever
takes the events writes messages and state, in one thread.
"""

from __future__ import annotations

import logging
import queue
import threading
from collections import deque
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

import psycopg2
from psycopg2 import sql

from singer_postgres import failures
from singer_postgres.errors import SingerPostgresError
from singer_postgres.tap import ranges
from singer_postgres.tap.chunks import ChunkFile, ChunkFiles, ChunkWriter, Stopped
from singer_postgres.tap.connections import Worker
from singer_postgres.tap.events import Event, Failed, Finished, Opened, Read
from singer_postgres.tap.identity import identity
from singer_postgres.tap.opening import OpenStream, StreamPlan, open_stream
from singer_postgres.tap.snapshots import BEGIN, Snapshot
from singer_postgres.wire import BlockRange, Chunk, Table

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    from psycopg2.extensions import connection as Connection  # noqa: N812

    from singer_postgres.tap.connections import Source
    from singer_postgres.tap.notices import Notices
    from singer_postgres.tap.relations import Leaf
    from singer_postgres.tap.watermark import Lookback


_LOGGER = logging.getLogger("tap-postgres")


@dataclass(frozen=True)
class Settings:
    """How much at once."""

    chunk_bytes: int
    parallel: int
    snapshot_s: float
    lookback: Lookback


@dataclass(frozen=True)
class _Task:
    stream: OpenStream
    snapshot: Snapshot
    leaf: Leaf | None
    blocks: BlockRange | None
    may_roll: bool


class Reading:
    """The streams of one run being read."""

    def __init__(
        self, source: Source, plans: Iterable[StreamPlan], files: ChunkFiles, settings: Settings, notices: Notices
    ) -> None:
        """Start the workers."""
        self.events: queue.Queue[Event] = queue.Queue()
        self._source = source
        self._files = files
        self._settings = settings
        self._notices = notices
        self._plans = deque(plans)
        self._lock = threading.Lock()
        self._tasks: deque[tuple[OpenStream, Leaf | None, BlockRange | None, bool]] = deque()
        self._retiring: list[Snapshot] = []
        self._idle: list[Connection] = []
        self._identity: str | None = None
        for number in range(settings.parallel):
            threading.Thread(target=self._work, name=f"reader-{number}", daemon=True).start()

    def expire(self) -> None:
        """Give up snapshots that are too old, though nobody asked for another: the target may stand still."""
        if not self._lock.acquire(blocking=False):
            return
        try:
            for stream in {id(task[0]): task[0] for task in self._tasks}.values():
                if stream.snapshot and stream.snapshot.age_s > self._settings.snapshot_s:
                    self._retire(stream)
            self._release()
        except Exception as error:  # noqa: BLE001 - whatever it is, the taker of events is to know
            self.events.put(Failed(error, None))
        finally:
            self._lock.release()

    # the schedule: which range is next

    def _next(self) -> _Task | None:
        """Return the next range to read, opening the next stream when the current one is handed out."""
        with self._lock:
            self._release()
            while True:
                while not self._tasks:
                    if not self._plans:
                        return None
                    plan = self._plans.popleft()
                    try:
                        self._tried(plan, partial(self._open, plan))
                    except (psycopg2.Error, SingerPostgresError) as error:
                        self.events.put(Failed(_named(error, plan), plan))
                stream, leaf, blocks, may_roll = self._tasks.popleft()
                if stream.snapshot is None or stream.snapshot.age_s > self._settings.snapshot_s:
                    try:
                        self._tried(stream.plan, partial(self._renew, stream))
                    except (psycopg2.Error, SingerPostgresError) as error:
                        self._leave_out(stream, error)
                        continue
                snapshot = stream.snapshot
                assert snapshot
                snapshot.use()
                if not any(task[0] is stream for task in self._tasks):
                    self._retire(stream)
                return _Task(stream, snapshot, leaf, blocks, may_roll)

    def _open(self, plan: StreamPlan) -> None:
        connection = self._connect()
        try:
            if self._identity is None:
                self._identity = identity(connection)
            stream = open_stream(connection, plan, lookback=self._settings.lookback, notices=self._notices)
            self._schedule(stream, whole=stream.plan.start is None)
        except BaseException:
            connection.close()
            raise
        plan = stream.plan
        selection = stream.selection
        shape = selection.shape()
        table = Table(
            self._identity,
            plan.schema,
            plan.name,
            selection.wire_columns(),
            plan.key,
            plan.method,
            selection.binary,
            relation=shape.relation,
            width=shape.width,
        )
        self.events.put(Opened(plan, table, shape, selection.relation.rows))
        if not stream.left:
            self._retire(stream)
            self.events.put(Finished(plan, replace(stream.chunk, last=True)))

    def _schedule(self, stream: OpenStream, *, whole: bool) -> None:
        """Put the stream's ranges in the queue."""
        snapshot = stream.snapshot
        assert snapshot
        leaves = snapshot.relation.leaves
        if not leaves:
            self._add(stream, [(None, None)], may_roll=True)
            return
        if not whole and self._estimate(stream, snapshot) < self._settings.chunk_bytes / 2:
            # what changed fits one chunk: an index on the replication key finds it
            self._add(stream, [(None, None)], may_roll=False)
            return
        cut = ranges.cut(leaves, chunk_bytes=self._settings.chunk_bytes, parallel=self._settings.parallel)
        self._add(stream, ranges.remaining(cut, stream.chunk.resumed), may_roll=True)

    def _add(
        self, stream: OpenStream, pieces: Iterable[tuple[Leaf | None, BlockRange | None]], *, may_roll: bool
    ) -> None:
        tasks = [(stream, leaf, blocks, may_roll) for leaf, blocks in pieces]
        stream.left += len(tasks)
        self._tasks.extend(tasks)

    def _estimate(self, stream: OpenStream, snapshot: Snapshot) -> float:
        """Return the planner's idea of how many bytes the stream's query gives."""
        with snapshot.connection.cursor() as cursor:
            cursor.execute(sql.SQL("EXPLAIN (FORMAT JSON) ") + stream.selection.query(bound=stream.bound))
            row = cursor.fetchone()
        assert row
        plan = row[0][0]["Plan"]
        return float(plan["Plan Rows"]) * float(plan["Plan Width"])

    def _renew(self, stream: OpenStream) -> None:
        """Go on under a new snapshot, the last one having been held for long enough.

        Raises:
            SingerPostgresError: the stream can't be read under two snapshots.
        """
        plan = stream.plan
        if plan.method == "FULL_TABLE":
            msg = (
                f"{plan.stream} is read whole, under one snapshot, and that took longer than snapshot_seconds = "
                f"{self._settings.snapshot_s:g}; raise that, or give the stream a replication key."
            )
            raise SingerPostgresError(msg)
        self._retire(stream)
        connection = self._connect()
        try:
            snapshot = Snapshot(connection, plan.schema, plan.name)
        except BaseException:
            connection.close()
            raise
        was = {leaf.relfilenode for leaf in stream.selection.relation.leaves}
        if snapshot.relation != stream.selection.relation or not was <= {
            leaf.relfilenode for leaf in snapshot.relation.leaves
        }:
            msg = f"{snapshot.relation} was altered or rewritten while it was being read; run this again."
            raise SingerPostgresError(msg)
        stream.snapshot = snapshot
        stream.chunk = replace(stream.chunk, snapshot=snapshot.id, snapshot_at=snapshot.at, position=snapshot.position)

    def _retire(self, stream: OpenStream) -> None:
        if stream.snapshot:
            self._retiring.append(stream.snapshot)
            stream.snapshot = None

    def _release(self) -> None:
        """End the transactions of retired snapshots that nobody is about to use."""
        for snapshot in [snapshot for snapshot in self._retiring if not snapshot.needed]:
            self._retiring.remove(snapshot)
            try:
                self._idle.append(snapshot.release())
            except psycopg2.Error:
                # it broke, and its transaction ended with it
                snapshot.connection.close()

    def _connect(self) -> Connection:
        return self._idle.pop() if self._idle else self._source.connect_once()

    def _tried(self, plan: StreamPlan, attempt: Callable[[], None]) -> None:
        """Carry out `attempt`, again if its error may pass."""

        def told(error: BaseException, wait_s: float) -> None:
            what = " ".join(str(error).split())
            _LOGGER.warning("Reading %s is tried again in %.1f s: %s", plan.stream, wait_s, what)

        def passes(error: BaseException) -> bool:
            return failures.passes(error, reached=self._identity is not None)

        failures.retried(attempt, passes=passes, told=told)

    # the workers

    def _work(self) -> None:
        worker = Worker(self._source)
        try:
            while True:
                # room first: a snapshot is not to be held while the target is slow
                path = self._files.new()
                task = self._next()
                if task is None:
                    self._files.discard(path)
                    return
                try:
                    self._read_on(worker, task, path)
                except (psycopg2.Error, SingerPostgresError) as error:
                    self._give_up(task.stream, error)
        except Stopped:
            return
        except Exception as error:  # noqa: BLE001 - whatever it is, the taker of events is to know
            self.events.put(Failed(error, None))
        finally:
            worker.close()

    def _read_on(self, worker: Worker, task: _Task, path: Path) -> None:
        """Read one range; again, under a new snapshot, if its connection breaks."""
        plan, again = task.stream.plan, False

        def attempt() -> None:
            nonlocal again, task, path
            if again:
                path = self._files.new()
            try:
                if again:
                    with self._lock:
                        self._renew(task.stream)
                        assert task.stream.snapshot
                        task = replace(task, snapshot=task.stream.snapshot)
                        task.snapshot.use()
                        self._retire(task.stream)
                again = True
                try:
                    connection = worker.connect()
                except BaseException:
                    with self._lock:
                        task.snapshot.used()
                    raise
            except BaseException:
                # nothing has been written to it
                self._files.discard(path)
                raise
            try:
                self._read(connection, task, path)
            except psycopg2.Error as error:
                worker.close()
                # what was read of the range under the old snapshot comes again under the new one, and replaces it
                if failures.passes(error) and not (plan.method == "INCREMENTAL" and plan.key):
                    more = "; without a key, or read whole, it can't go on. Run this again"
                    raise _named(error, plan, more) from error
                raise

        self._tried(plan, attempt)

    def _give_up(self, stream: OpenStream, error: Exception) -> None:
        """Leave out the rest of a stream that can't be read."""
        with self._lock:
            self._leave_out(stream, error)

    def _leave_out(self, stream: OpenStream, error: Exception) -> None:
        self._tasks = deque(task for task in self._tasks if task[0] is not stream)
        self._retire(stream)
        if stream.left >= 0:
            # whoever is at another of its ranges doesn't end it
            stream.left = -1
            self.events.put(Failed(_named(error, stream.plan), stream.plan))

    def _read(self, connection: Connection, task: _Task, path: Path) -> None:
        """Read one range in one transaction."""
        stream = task.stream
        chunk = replace(stream.chunk, snapshot=task.snapshot.id, snapshot_at=task.snapshot.at)
        writer = ChunkWriter(
            self._files,
            path,
            chunk_bytes=self._settings.chunk_bytes,
            binary=stream.selection.binary,
            done=lambda file: self._announce(stream.plan, chunk, file),
            may_roll=task.may_roll,
        )
        try:
            with connection.cursor() as cursor:
                try:
                    cursor.execute(f"{BEGIN}; SET TRANSACTION SNAPSHOT '{task.snapshot.id}'")
                finally:
                    with self._lock:
                        task.snapshot.used()
                query = stream.selection.query(leaf=task.leaf, blocks=task.blocks, bound=stream.bound)
                form = "binary" if stream.selection.binary else "text"
                copy = sql.SQL("COPY ({}) TO STDOUT (FORMAT {})").format(query, sql.SQL(form)).as_string(connection)
                buffer = writer.buffered()
                cursor.copy_expert(copy, buffer)
                rows = cursor.rowcount
                buffer.flush()
                buffer.detach()
                cursor.execute("COMMIT")
        except ChunkWriter.Overflow:
            connection.close()
            writer.abandon()
            self._recut(stream)
            return
        except BaseException:
            writer.abandon()
            raise
        resumable = task.blocks if stream.plan.start is None and stream.plan.method == "INCREMENTAL" else None
        last = writer.finish(rows)
        chunk = replace(chunk, blocks=resumable)
        if last:
            self._announce(stream.plan, chunk, last, rows=rows)
        elif resumable:
            self.events.put(Read(stream.plan, chunk, None))
        self._range_done(stream)

    def _announce(self, plan: StreamPlan, chunk: Chunk, file: ChunkFile, *, rows: int = 0) -> None:
        full = replace(chunk, rows=file.rows, bytes=file.bytes, crc32=file.crc32)
        self.events.put(Read(plan, full, file.path, rows))

    def _recut(self, stream: OpenStream) -> None:
        """Read in ranges what turned out to be more than one chunk."""
        with self._lock:
            if stream.snapshot is None:
                self._renew(stream)
            self._schedule(stream, whole=True)
            self._finish(stream)

    def _range_done(self, stream: OpenStream) -> None:
        with self._lock:
            self._finish(stream)

    def _finish(self, stream: OpenStream) -> None:
        """Count a range off."""
        if stream.left < 0:
            return
        stream.left -= 1
        if not stream.left:
            self.events.put(Finished(stream.plan, replace(stream.chunk, last=True)))


def _named(error: Exception, plan: StreamPlan, more: str = "") -> Exception:
    return failures.named(error, f"Reading {plan.stream}", more)
