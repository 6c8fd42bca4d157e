"""Reads streams into chunk files, several ranges at once.

Workers take ranges in the order of the streams, each with a connection of its own and one short transaction a range,
under the snapshot that the stream's ranges share. They write files and put events; they know nothing of Singer. Whoever
takes the events writes messages and state, in one thread.
"""

from __future__ import annotations

import queue
import threading
from dataclasses import replace
from typing import TYPE_CHECKING

import psycopg2
from psycopg2 import sql

from singer_postgres import failures
from singer_postgres.errors import SingerPostgresError
from singer_postgres.tap.chunks import ChunkFile, ChunkFiles, ChunkWriter, Stopped
from singer_postgres.tap.connections import Worker
from singer_postgres.tap.events import Event, Failed, Read
from singer_postgres.tap.schedule import Schedule, Settings, Task, named
from singer_postgres.tap.workers import Crowded

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from psycopg2.extensions import connection as Connection  # noqa: N812

    from singer_postgres.tap.connections import Source
    from singer_postgres.tap.notices import Notices
    from singer_postgres.tap.opening import StreamPlan
    from singer_postgres.wire import Chunk

# how often a stream that is read whole is begun anew after its connections broke
_MOST_TURNS = 4


class Reading:
    """The streams of one run being read."""

    def __init__(
        self, source: Source, plans: Iterable[StreamPlan], files: ChunkFiles, settings: Settings, notices: Notices
    ) -> None:
        """Start the workers."""
        self.events: queue.Queue[Event] = queue.Queue()
        self._source = source
        self._files = files
        self._chunk_bytes = settings.chunk_bytes
        self._schedule = Schedule(source, plans, settings, notices, self.events)
        for number in range(settings.parallel):
            threading.Thread(target=self._work, name=f"reader-{number}", daemon=True).start()

    def expire(self) -> None:
        """Give up snapshots that are too old, though nobody asked for another: the target may stand still."""
        try:
            self._schedule.expire()
        except Exception as error:  # noqa: BLE001 - whatever it is, the taker of events is to know
            self.events.put(Failed(error, None))

    def _work(self) -> None:
        worker = Worker(self._source)
        try:
            while True:
                # room first: a snapshot is not to be held while the target is slow
                path = self._files.new()
                try:
                    task = self._schedule.next()
                except Crowded:
                    self._files.discard(path)
                    return
                if task is None:
                    self._files.discard(path)
                    return
                if not self._finds_room(worker, task):
                    self._files.discard(path)
                    return
                try:
                    self._read_on(worker, task, path)
                except (psycopg2.Error, SingerPostgresError) as error:
                    self._schedule.give_up(task.stream, error)
        except Stopped:
            return
        except Exception as error:  # noqa: BLE001 - whatever it is, the taker of events is to know
            self.events.put(Failed(error, None))
        finally:
            worker.close()

    def _finds_room(self, worker: Worker, task: Task) -> bool:
        """Return False if the source takes no more connections, and other workers have one: they read the rest."""
        try:
            worker.connect()
        except psycopg2.Error as error:
            if self._schedule.workers.leaves(error):
                self._schedule.put_back(task)
                return False
            # to be met again where it is tried more than once
        return True

    def _read_on(self, worker: Worker, first: Task, path: Path) -> None:
        """Read one range; again, under a new snapshot, if its connection breaks."""
        task: Task | None = None

        def attempt() -> None:
            nonlocal task, path
            if task is None:
                task = first
            elif (task := self._schedule.again(task)) is None:
                return
            else:
                path = self._files.new()
            self._read_once(worker, task, path)

        self._schedule.tried(first.stream.plan, attempt)

    def _read_once(self, worker: Worker, task: Task, path: Path) -> None:
        try:
            connection = worker.connect()
        except BaseException:
            self._schedule.entered(task)
            # nothing has been written to it
            self._files.discard(path)
            raise
        try:
            self._read(connection, task, path)
        except psycopg2.Error as error:
            worker.close()
            if failures.passes(error):
                _refuse_another(task, error)
            raise

    def _read(self, connection: Connection, task: Task, path: Path) -> None:
        """Read one range in one transaction."""
        stream = task.stream
        chunk = replace(stream.chunk, snapshot=task.snapshot.id, snapshot_at=task.snapshot.at)
        writer = ChunkWriter(
            self._files,
            path,
            chunk_bytes=self._chunk_bytes,
            binary=stream.selection.binary,
            done=lambda file: self._announce(task, chunk, file),
            may_roll=task.may_roll,
        )
        try:
            with connection.cursor() as cursor:
                try:
                    task.snapshot.enter(cursor)
                finally:
                    self._schedule.entered(task)
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
            self._schedule.recut(task)
            return
        except BaseException:
            writer.abandon()
            raise
        plan = stream.plan
        first_load = plan.method == "INCREMENTAL" and plan.start is None and plan.backfill is None
        resumable = task.blocks if first_load else None
        last = writer.finish(rows)
        chunk = replace(chunk, blocks=resumable)
        if last:
            self._announce(task, chunk, last, rows=rows)
        elif resumable:
            self._schedule.announced(task, Read(stream.plan, chunk, None))
        self._schedule.done(task)

    def _announce(self, task: Task, chunk: Chunk, file: ChunkFile, *, rows: int = 0) -> None:
        full = replace(chunk, rows=file.rows, bytes=file.bytes, crc32=file.crc32)
        if not self._schedule.announced(task, Read(task.stream.plan, full, file.path, rows)):
            self._files.discard(file.path)


def _refuse_another(task: Task, error: Exception) -> None:
    """Raise for a range that must not be read again, or not once more.

    What was read of a range with a key, under the old snapshot, is replaced when it comes again under the new one.
    """
    plan = task.stream.plan
    if plan.method == "INCREMENTAL" and not plan.key:
        why = "; without a key it can't go on, as rows would double. Run this again"
    elif task.turn >= _MOST_TURNS:
        why = f", again and again, in {task.turn + 1} attempts"
    else:
        return
    raise named(error, plan, why, of_stream=True) from error
