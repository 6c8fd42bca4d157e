"""Reads streams into chunk files, several ranges at once.

Workers take ranges in the order of the streams, each with a connection of its own and one short transaction a range,
under the snapshot that the stream's ranges share. A table is locked while a range of it is read, and no longer. They
write files and put events; they know nothing of Singer. Whoever takes the events writes messages and state, in one
thread.
"""

from __future__ import annotations

import queue
import threading
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING

import psycopg2
from psycopg2 import errors, sql

from singer_postgres.core import driver_errors
from singer_postgres.core.errors import SingerPostgresError
from singer_postgres.core.wire import Chunk, EmptyRange
from singer_postgres.core.worker_connection import WorkerConnection
from singer_postgres.tap import locks
from singer_postgres.tap.chunks import ChunkFile, ChunkFiles, ChunkWriter, Stopped
from singer_postgres.tap.events import Empty, Event, Failed, Read
from singer_postgres.tap.locks import GaveWayError, LockedError
from singer_postgres.tap.schedule import Schedule
from singer_postgres.tap.snapshots import ChangedError
from singer_postgres.tap.workers import Crowded

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    from psycopg2.extensions import connection as Connection  # noqa: N812

    from singer_postgres.core.notices import Notices
    from singer_postgres.core.wire import BlockRange
    from singer_postgres.tap.connections import Source
    from singer_postgres.tap.server import Settings
    from singer_postgres.tap.stream_plan import StreamPlan
    from singer_postgres.tap.tasks import Task


class ChunkReaders:
    """The streams of one run being read."""

    def __init__(
        self, source: Source, plans: Iterable[StreamPlan], files: ChunkFiles, settings: Settings, notices: Notices
    ) -> None:
        """Begin with nothing read."""
        self.events: queue.Queue[Event] = queue.Queue()
        self._source = source
        self._files = files
        self._chunk_bytes = settings.chunk_bytes
        self._schedule = Schedule(source, plans, settings, notices, self.events)
        self._parallel = settings.parallel

    def start(self) -> None:
        """Start the threads that read."""
        for number in range(self._parallel):
            threading.Thread(target=self._work, name=f"reader-{number}", daemon=True).start()

    def expire(self) -> None:
        """Give up snapshots that are too old, though nobody asked for another: the target may stand still."""
        try:
            self._schedule.expire()
        except Exception as error:  # noqa: BLE001 - whatever it is, the taker of events is to know
            self.events.put(Failed(error, None))

    def _work(self) -> None:
        worker = WorkerConnection(self._source.connect_once)
        try:
            while True:
                # room first: a snapshot is not to be held while the target is slow
                path = self._files.new()
                try:
                    task = self._schedule.next()
                except Crowded:
                    task = None
                if task is None or not self._finds_room(worker, task):
                    self._files.discard(path)
                    return
                self._read_once(worker, task, path)
        except Stopped:
            return
        except Exception as error:  # noqa: BLE001 - whatever it is, the taker of events is to know
            self.events.put(Failed(error, None))
        finally:
            worker.close()

    def _finds_room(self, worker: WorkerConnection[Connection], task: Task) -> bool:
        """Return False if the source takes no more connections, and other workers have one: they read the rest."""
        try:
            worker.connect()
        except psycopg2.Error as error:
            if self._schedule.server.workers.leaves(error):
                self._schedule.put_back(task)
                return False
            # to be met again where it is tried more than once
        return True

    def _read_once(self, worker: WorkerConnection[Connection], task: Task, path: Path) -> None:
        """Read one range, or have it read later."""
        reading = _Range(task, self._chunk_bytes)
        try:
            self._read(worker, reading, path)
        except LockedError as error:
            self._schedule.locked_out(task, str(error))
        except GaveWayError as error:
            worker.close()
            self._schedule.gave_way(task, str(error), announced=reading.announced)
        except ChangedError as error:
            self._schedule.changed(task, str(error))
        except Stale:
            worker.close()
        except psycopg2.Error as error:
            worker.close()
            if driver_errors.is_transient(error):
                self._schedule.broke(task, error)
            else:
                self._schedule.give_up(task.stream, error)
        except SingerPostgresError as error:
            self._schedule.give_up(task.stream, error)

    def _read(self, worker: WorkerConnection[Connection], reading: _Range, path: Path) -> None:
        """Read one range in one transaction."""
        task = reading.task
        try:
            connection = worker.connect()
        except BaseException:
            self._schedule.entered(task, locked=False)
            # nothing has been written to it
            self._files.discard(path)
            raise
        with self._schedule.server.watch.over(connection, worker.pid) as reader:
            writer = reading.writer(self._files, path, self._announce, reader.gave_way)
            try:
                self._enter(connection, task)
                rows = reading.copy(connection, writer)
            except ChunkWriter.Overflow:
                worker.close()
                writer.abandon()
                self._schedule.recut(task)
                return
            except BaseException:
                writer.abandon()
                raise
        if reader.gave_way.is_set():
            # too late for this range, and not for its session
            worker.close()
        self._finish(reading, writer, rows)

    def _enter(self, connection: Connection, task: Task) -> None:
        """Begin a transaction under the task's snapshot, with a lock on what it reads.

        Raises:
            LockedError: it is locked.
            ChangedError: it is not what it was when the snapshot was taken.
        """
        snapshot, locked = task.snapshot, False
        try:
            with connection.cursor() as cursor:
                snapshot.enter(cursor)
                try:
                    relation = task.stream.selection.source(task.leaf)
                    locks.lock(cursor, relation, lock_timeout_s=self._source.lock_timeout_s)
                    snapshot.require_same(task.parts, task.stream.columns_read)
                    locked = True
                except LockedError as error:
                    cursor.execute("ROLLBACK")
                    raise LockedError(snapshot.locked_by(task.parts)) from error
                except (errors.UndefinedTable, errors.InvalidSchemaName) as error:
                    cursor.execute("ROLLBACK")
                    raise ChangedError("it, or a part of it, was dropped or renamed") from error
                except ChangedError:
                    cursor.execute("ROLLBACK")
                    raise
        finally:
            self._schedule.entered(task, locked=locked)

    def _finish(self, reading: _Range, writer: ChunkWriter, rows: int) -> None:
        task = reading.task
        plan = task.stream.plan
        first_load = plan.method == "INCREMENTAL" and plan.bookmark is None and plan.backfill is None
        resumable = task.blocks if first_load else None
        last = writer.finish(rows)
        if last:
            # if its stream has failed by now, there is nothing more to do about the range
            with suppress(Stale):
                self._announce(reading, last, rows=rows, blocks=resumable)
        elif resumable:
            self._schedule.announced(task, Empty(plan, EmptyRange(**reading.origin.common, blocks=resumable)))
        self._schedule.done(task)

    def _announce(self, reading: _Range, file: ChunkFile, *, rows: int = 0, blocks: BlockRange | None = None) -> None:
        chunk = Chunk(**reading.origin.common, rows=file.rows, bytes=file.bytes, crc32=file.crc32, blocks=blocks)
        if not self._schedule.announced(reading.task, Read(reading.task.stream.plan, chunk, file.path, rows)):
            self._files.discard(file.path)
            raise Stale
        reading.announced = True


class Stale(Exception):  # noqa: N818 - not an error: there is nothing more to read of the range
    """The range's stream has failed, or was begun anew."""


class _Range:
    """A range that is being read, and how much of it is on its way to the target."""

    def __init__(self, task: Task, chunk_bytes: int) -> None:
        self.task = task
        self.origin = replace(task.stream.origin, snapshot=task.snapshot.id, snapshot_at=task.snapshot.at)
        self.announced = False
        self._chunk_bytes = chunk_bytes

    def writer(
        self, files: ChunkFiles, path: Path, announce: Callable[[_Range, ChunkFile], None], gave_way: threading.Event
    ) -> ChunkWriter:
        """Return what writes its files."""
        return ChunkWriter(
            files,
            path,
            chunk_bytes=self._chunk_bytes,
            binary=self.task.stream.selection.binary,
            done=lambda file: announce(self, file),
            may_roll=self.task.may_roll,
            gave_way=gave_way,
        )

    def copy(self, connection: Connection, writer: ChunkWriter) -> int:
        """Read all of it; return the number of its rows."""
        stream = self.task.stream
        query = stream.selection.query(leaf=self.task.leaf, blocks=self.task.blocks, bound=stream.bound)
        form = "binary" if stream.selection.binary else "text"
        with connection.cursor() as cursor:
            copy = sql.SQL("COPY ({}) TO STDOUT (FORMAT {})").format(query, sql.SQL(form)).as_string(connection)
            buffer = writer.buffered()
            cursor.copy_expert(copy, buffer)
            rows = cursor.rowcount
            buffer.flush()
            buffer.detach()
            cursor.execute("COMMIT")
        return rows
