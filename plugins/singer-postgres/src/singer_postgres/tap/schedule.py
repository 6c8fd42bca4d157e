"""Which range of which stream is read next, and under which snapshot: what the workers share, behind one lock."""

from __future__ import annotations

import logging
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
from singer_postgres.tap.events import Event, Failed, Finished, Opened
from singer_postgres.tap.identity import identity
from singer_postgres.tap.opening import OpenStream, Status, StreamPlan, open_stream
from singer_postgres.tap.snapshots import Snapshot
from singer_postgres.tap.workers import NEEDED, Crowded, Workers
from singer_postgres.wire import BlockRange, Table

if TYPE_CHECKING:
    import queue
    from collections.abc import Callable, Iterable

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
class Task:
    """A range to read.

    Attributes:
        may_roll: it may fill more than one file.
        turn: the stream's, when it was handed out.
    """

    stream: OpenStream
    snapshot: Snapshot
    leaf: Leaf | None
    blocks: BlockRange | None
    may_roll: bool
    turn: int


class Schedule:
    """The streams of one run: their snapshots, and the ranges that are yet to be read."""

    def __init__(
        self,
        source: Source,
        plans: Iterable[StreamPlan],
        settings: Settings,
        notices: Notices,
        events: queue.Queue[Event],
    ) -> None:
        """Begin with nothing open.

        Args:
            events: takes what becomes of the streams.
        """
        self._source = source
        self._plans = deque(plans)
        self._settings = settings
        self._notices = notices
        self._events = events
        self._lock = threading.Lock()
        self._tasks: deque[tuple[OpenStream, Leaf | None, BlockRange | None, bool]] = deque()
        self._retiring: list[Snapshot] = []
        self._idle: list[Connection] = []
        self._identity: str | None = None
        self.workers = Workers(settings.parallel)

    def next(self) -> Task | None:
        """Return the next range to read, opening the next stream when the current one is handed out."""
        with self._lock:
            self._release()
            while True:
                while not self._tasks:
                    if not self._plans:
                        return None
                    plan = self._plans.popleft()
                    try:
                        self.tried(plan, partial(self._open, plan))
                    except Crowded:
                        self._plans.appendleft(plan)
                        raise
                    except (psycopg2.Error, SingerPostgresError) as error:
                        self._events.put(Failed(self._named(error, plan), plan))
                stream, leaf, blocks, may_roll = self._tasks.popleft()
                if stream.snapshot is None or stream.snapshot.age_s > self._settings.snapshot_s:
                    try:
                        self.tried(stream.plan, partial(self._renew, stream))
                    except Crowded:
                        self._tasks.appendleft((stream, leaf, blocks, may_roll))
                        raise
                    except (psycopg2.Error, SingerPostgresError) as error:
                        self._leave_out(stream, error)
                        continue
                snapshot = stream.snapshot
                assert snapshot
                snapshot.use()
                if not any(task[0] is stream for task in self._tasks):
                    self._retire(stream)
                return Task(stream, snapshot, leaf, blocks, may_roll, stream.turn)

    def again(self, task: Task) -> Task | None:
        """Return a range once more, under a new snapshot; None if its stream failed or is begun anew.

        Raises:
            SingerPostgresError, psycopg2.Error: it can't be.
        """
        stream = task.stream
        with self._lock:
            if not _is_current(task):
                return None
            if stream.plan.method == "FULL_TABLE":
                self._begin_again(task)
                return None
            self._renew(stream)
            assert stream.snapshot
            task = replace(task, snapshot=stream.snapshot)
            task.snapshot.use()
            self._retire(stream)
            return task

    def put_back(self, task: Task) -> None:
        """Leave a range that was not begun to another worker."""
        with self._lock:
            task.snapshot.used()
            stream = task.stream
            if stream.left < 0 or task.turn != stream.turn:
                return
            if stream.snapshot is None and task.snapshot in self._retiring:
                self._retiring.remove(task.snapshot)
                stream.snapshot = task.snapshot
            self._tasks.appendleft((stream, task.leaf, task.blocks, task.may_roll))

    def entered(self, task: Task) -> None:
        """Note that the task's transaction has begun, or never will: its snapshot needs to be held no longer for it."""
        with self._lock:
            task.snapshot.used()

    def announced(self, task: Task, event: Event) -> bool:
        """Hand on what was read; return False if its stream has failed, or was begun anew.

        A stream's end is the last event of it: whoever takes the events listens no longer then.
        """
        with self._lock:
            if not _is_current(task):
                return False
            self._events.put(event)
            return True

    def recut(self, task: Task) -> None:
        """Read in ranges what turned out to be more than one chunk."""
        with self._lock:
            stream = task.stream
            if not _is_current(task):
                return
            if stream.snapshot is None:
                self._renew(stream)
            self._schedule(stream, whole=True)
            self._finish(task)

    def done(self, task: Task) -> None:
        """Count a range off."""
        with self._lock:
            self._finish(task)

    def give_up(self, stream: OpenStream, error: Exception) -> None:
        """Leave out the rest of a stream that can't be read."""
        with self._lock:
            self._leave_out(stream, error)

    def expire(self) -> None:
        """Give up snapshots that are too old, though nobody asked for another: the target may stand still."""
        if not self._lock.acquire(blocking=False):
            return
        try:
            for stream in {id(task[0]): task[0] for task in self._tasks}.values():
                if stream.snapshot and stream.snapshot.age_s > self._settings.snapshot_s:
                    self._retire(stream)
            self._release()
        finally:
            self._lock.release()

    def tried(self, plan: StreamPlan, attempt: Callable[[], None]) -> None:
        """Carry out `attempt`, again if its error may pass."""

        def told(error: BaseException, wait_s: float) -> None:
            what = " ".join(str(error).split())
            _LOGGER.warning("Reading %s is tried again in %.1f s: %s", plan.stream, wait_s, what)

        def passes(error: BaseException) -> bool:
            if self.workers.leaves(error):
                raise Crowded from error
            return failures.passes(error, reached=self._identity is not None)

        failures.retried(attempt, passes=passes, told=told)

    # with the lock held

    def _open(self, plan: StreamPlan) -> None:
        connection = self._connect()
        try:
            if self._identity is None:
                self._identity = identity(connection)
            stream = open_stream(connection, plan, lookback=self._settings.lookback, notices=self._notices)
            self._schedule(stream, whole=stream.plan.whole)
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
        self._events.put(Opened(plan, table, shape, selection.relation.rows))
        self._end_if_empty(stream)

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
        self._take_snapshot(stream)

    def _take_snapshot(self, stream: OpenStream) -> None:
        plan = stream.plan
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

    def _begin_again(self, task: Task) -> None:
        """Read a stream anew, all of whose rows must be of one snapshot."""
        stream = task.stream
        self._take_snapshot(stream)
        self._tasks = deque(other for other in self._tasks if other[0] is not stream)
        stream.turn += 1
        stream.left = 0
        self._schedule(stream, whole=True)
        self._end_if_empty(stream)

    def _end_if_empty(self, stream: OpenStream) -> None:
        if not stream.left:
            self._retire(stream)
            stream.status = Status.FINISHED
            self._events.put(Finished(stream.plan, replace(stream.chunk, last=True)))

    def _finish(self, task: Task) -> None:
        """Count a range off, unless its stream failed or was begun anew."""
        if _is_current(task):
            task.stream.left -= 1
            self._end_if_empty(task.stream)

    def _leave_out(self, stream: OpenStream, error: Exception) -> None:
        self._tasks = deque(task for task in self._tasks if task[0] is not stream)
        self._retire(stream)
        if stream.status is Status.READING:
            stream.status = Status.FAILED
            self._events.put(Failed(self._named(error, stream.plan), stream.plan))

    def _named(self, error: Exception, plan: StreamPlan) -> Exception:
        more = NEEDED if failures.is_crowded(error) else ""
        return named(error, plan, more, of_stream=failures.is_of_stream(error) or self._is_reached())

    def _is_reached(self) -> bool:
        """Return whether the source is there: a connection that breaks again and again is then its stream's."""
        if self._identity is None:
            return False
        try:
            self._source.connect_once().close()
        except (psycopg2.Error, SingerPostgresError):
            return False
        return True

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


def _is_current(task: Task) -> bool:
    """Return whether what is read of the task still counts."""
    return task.stream.status is Status.READING and task.turn == task.stream.turn


def named(error: Exception, plan: StreamPlan, more: str = "", *, of_stream: bool) -> Exception:
    """Return the error with the stream's name in it, if it is one of the database's."""
    return failures.named(error, f"Reading {plan.stream}", more, of_stream=of_stream)
