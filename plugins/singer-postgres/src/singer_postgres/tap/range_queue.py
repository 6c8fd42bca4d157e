"""Decides which range of which stream is read next, and under which snapshot. All workers share it, behind one lock."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING

import psycopg2

from singer_postgres.core.errors import SingerPostgresError, SnapshotExpiredError
from singer_postgres.core.wire import StreamEnd
from singer_postgres.tap.epochs import EpochState
from singer_postgres.tap.events import Event, Failed, Finished, Opened
from singer_postgres.tap.locks import LockedError, Pause, ReadInterruptedError
from singer_postgres.tap.range_lease import Range, RangeLease
from singer_postgres.tap.source_queries import ReadSettings, SourceQueries
from singer_postgres.tap.stream_restart import refuse_expired_snapshot, select_again
from singer_postgres.tap.worker_count import Crowded

if TYPE_CHECKING:
    import queue
    from collections.abc import Callable, Iterable

    from psycopg2.extensions import connection as Connection  # noqa: N812

    from singer_postgres.core.notices import Notices
    from singer_postgres.core.worker_connection import WorkerConnection
    from singer_postgres.tap.connections import SourceConnector
    from singer_postgres.tap.snapshots import Snapshot
    from singer_postgres.tap.stream_plan import StreamPlan
    from singer_postgres.tap.stream_planning import OpenStream

_LOGGER = logging.getLogger("tap-postgres")
# how often a stream restarts because its table changed
_MOST_RESTARTS = 8
# how often what was written while a stream was read may have to be read again
_MOST_PASSES = 8
# A pass that reads what was written is to take one snapshot, however long, as long as it goes on. If no range of it
# ends for so many seconds, the target may have stopped.
_STANDSTILL_S = 60.0
# If a stream takes longer than this to open, another worker opens the next one. Most streams open in milliseconds, and
# waiting for them spares the next stream a snapshot that it doesn't need yet.
_OPEN_NEXT_AFTER_S = 0.25
# the longest single wait for another worker
_TICK_S = 1.0


@dataclass(eq=False)
class _Unopened:
    """A stream that is not open yet, perhaps because its table was locked."""

    plan: StreamPlan
    pause: Pause = field(default_factory=Pause)
    opening_since: float | None = None
    """When a worker began to open it; None if no worker is opening it."""


class RangeQueue:
    """The streams of one run: their snapshots, and the ranges still to read.

    The lock is held only for moments, never during a query. So a locked table, a slow connection or a wait for open
    transactions delays no other stream.
    """

    def __init__(
        self,
        source: SourceConnector,
        plans: Iterable[StreamPlan],
        settings: ReadSettings,
        notices: Notices,
        events: queue.Queue[Event],
    ) -> None:
        """Start with no stream open.

        Args:
            events: receives the events of the streams.
        """
        self.queries = SourceQueries(source, settings, notices)
        self._unopened = deque(_Unopened(plan) for plan in plans)
        self._settings = settings
        self._events = events
        self.changed = threading.Condition()
        """The lock. Who waits on it is woken when there may be more to read."""
        self._ranges: deque[Range] = deque()
        self._retiring: list[Snapshot] = []

    # for workers

    def next(self, worker: WorkerConnection[Connection]) -> RangeLease | None:
        """Return the next range to read; None if nothing is left.

        Streams are opened in their order. A stream whose table is locked is retried later. A stream that is slow to
        open delays only the worker that opens it.

        Raises:
            Crowded: the source accepts no more connections, and other workers have some.
        """
        while True:
            self._release()
            with self.changed:
                step = self._next_step(worker)
                if isinstance(step, float):
                    self.changed.wait(step)
                    continue
            if step is None or isinstance(step, RangeLease):
                return step
            try:
                step()
            finally:
                with self.changed:
                    self.changed.notify_all()

    def expire(self) -> None:
        """Give up snapshots that are too old, even if no worker asks for a range: the target may have stopped."""
        with self.changed:
            for stream in {id(range_.stream): range_.stream for range_ in self._ranges}.values():
                self._expire(stream)
        self._release()

    def fail(self, stream: OpenStream, error: Exception) -> None:
        """Fail a stream that can't be read, and drop the rest of it."""
        error = self.queries.wrap_error(error, stream.plan)
        with self.changed:
            self.leave_out(stream, error)

    # with the lock held

    def _next_step(self, worker: WorkerConnection[Connection]) -> RangeLease | Callable[[], None] | float | None:
        """Return a range to read, or a step that must come first, or how long to wait; None if no range is left."""
        waits: list[float] = []
        seen: set[int] = set()
        for number, range_ in enumerate(self._ranges):
            stream = range_.stream
            if id(stream) in seen:
                continue
            seen.add(id(stream))
            if stream.renewing or stream.pause.left_s:
                waits.append(stream.pause.left_s or _TICK_S)
                continue
            if stream.snapshot and stream.snapshot.was_used:
                self._expire(stream)
            if stream.snapshot is None:
                stream.renewing = True
                return partial(self._renew, stream)
            del self._ranges[number]
            lease = RangeLease(range_, stream.snapshot, self.changed, self._events)
            if not any(other.stream is stream for other in self._ranges):
                self.retire(stream)
            return lease
        begun = [unopened.opening_since for unopened in self._unopened if unopened.opening_since is not None]
        too_soon_s = max(0.0, max(begun) + _OPEN_NEXT_AFTER_S - time.monotonic()) if begun else 0.0
        for unopened in self._unopened:
            if unopened.opening_since is not None:
                waits.append(_TICK_S)
            elif wait_s := max(too_soon_s, unopened.pause.left_s):
                waits.append(wait_s)
            else:
                unopened.opening_since = time.monotonic()
                return partial(self._open, unopened, worker)
        return min(waits, default=None)

    def _expire(self, stream: OpenStream) -> None:
        if stream.snapshot is None:
            return
        age_s, longest_s = stream.snapshot.age_s, self._settings.snapshot_s
        if stream.passes.since is not None:
            age_s, longest_s = min(age_s, time.monotonic() - stream.progress_at), max(longest_s, _STANDSTILL_S)
        if age_s > longest_s:
            # nothing was read under an unused snapshot
            stream.expired = stream.expired or stream.snapshot.was_used
            self.retire(stream)

    def put_back(self, lease: RangeLease, *, cut: bool = False) -> None:
        """Queue a range again, whole or cut into smaller ones, under the same snapshot if that still exists."""
        stream = lease.stream
        if not lease.epoch.is_reading:
            return
        if stream.snapshot is None and lease.snapshot in self._retiring:
            self._retiring.remove(lease.snapshot)
            stream.snapshot = lease.snapshot
        again = self.queries.cut(stream) if cut else [lease.range]
        stream.epoch.pending_ranges += len(again) - 1
        self._ranges.extendleft(reversed(again))
        self.changed.notify_all()

    def begin_again(self, lease: RangeLease) -> None:
        """Queue a range again under a new snapshot, which restarts the stream if it can't resume."""
        # a second attempt at many files in one statement could be interrupted like the first
        self.put_back(lease, cut=lease.announced and lease.range.most_files is not None)
        self.retire(lease.stream)

    def _add(self, stream: OpenStream, ranges: list[Range]) -> None:
        stream.epoch.pending_ranges += len(ranges)
        self._ranges.extend(ranges)
        self.changed.notify_all()

    def _end_if_empty(self, stream: OpenStream) -> None:
        if not stream.epoch.pending_ranges:
            self.retire(stream)
            if stream.passes.were_several and stream.plan.method == "INCREMENTAL" and stream.plan.part is None:
                self._pass_again(stream)
                return
            stream.epoch.state = EpochState.FINISHED
            end = StreamEnd(**stream.origin.common, report=self.queries.report(stream))
            self._events.put(Finished(stream.plan, end))

    def _pass_again(self, stream: OpenStream) -> None:
        """Queue the ranges of a pass that reads what was written while the stream was read under several snapshots."""
        if stream.passes.number >= _MOST_PASSES:
            msg = (
                f"What was written to {stream.plan.stream} while it was read was read {_MOST_PASSES} times, and never "
                "under one snapshot: sessions wait for its table, or connections break. Run this again."
            )
            self.leave_out(stream, SnapshotExpiredError(msg))
            return
        stream.passes = stream.passes.next()
        what = "What was written while it was read is read again: stream=%s, since=transaction %s"
        _LOGGER.info(what, stream.plan.stream, stream.passes.since)
        self._add(stream, self.queries.cut(stream))

    def finish(self, lease: RangeLease) -> None:
        """Count a range as done, unless its stream failed or restarted."""
        if lease.epoch.is_reading:
            lease.stream.passes.add(lease.snapshot)
            lease.epoch.pending_ranges -= 1
            self._end_if_empty(lease.stream)

    def leave_out(self, stream: OpenStream, error: Exception) -> None:
        """End a stream with an error, and drop the rest of it."""
        self._ranges = deque(range_ for range_ in self._ranges if range_.stream is not stream)
        self.retire(stream)
        if stream.epoch.is_reading:
            stream.epoch.state = EpochState.FAILED
            self._events.put(Failed(error, stream.plan))

    def retire(self, stream: OpenStream) -> None:
        """Give up the stream's snapshot: what is left of it needs another."""
        if stream.snapshot:
            stream.cost.snapshot_s = max(stream.cost.snapshot_s, stream.snapshot.age_s)
            self._retiring.append(stream.snapshot)
            stream.snapshot = None

    # without the lock, because these query the server

    def _open(self, unopened: _Unopened, worker: WorkerConnection[Connection]) -> None:
        """Open a stream, or postpone it if its table is locked."""
        plan = unopened.plan
        over = True
        try:
            # The worker connects first: if a snapshot took the last free connection, no worker could read.
            with suppress(psycopg2.Error, SingerPostgresError):
                self.queries.workers.connection(worker)
            stream, ranges = self.queries.with_retries(plan, partial(self.queries.open_stream, plan))
        except (LockedError, ReadInterruptedError) as locked:
            error = self.pause(unopened.pause, plan, str(locked))
            over = error is not None
            if error is not None:
                self._events.put(Failed(error, plan))
        except Crowded:
            over = False
            raise
        except (psycopg2.Error, SingerPostgresError) as error:
            self._events.put(Failed(self.queries.wrap_error(error, plan), plan))
        else:
            table, columns = self.queries.describe(stream)
            with self.changed:
                rows = stream.relation.rows * self.queries.share(stream, ranges)
                self._events.put(Opened(stream.plan, table, columns, rows, stream.passes.first))
                self._add(stream, ranges)
                self._end_if_empty(stream)
        finally:
            with self.changed:
                unopened.opening_since = None
                if over:
                    self._unopened.remove(unopened)

    def _renew(self, stream: OpenStream) -> None:
        """Resume a stream under a new snapshot, or restart it if it can't resume."""
        plan = stream.plan
        try:
            refuse_expired_snapshot(stream, self._settings.snapshot_s)
            snapshot = self.queries.with_retries(plan, partial(self.queries.snapshot, stream))
            try:
                self._resume(stream, snapshot)
            except BaseException:
                self.queries.release(snapshot)
                raise
        except (LockedError, ReadInterruptedError) as locked:
            error = self.pause(stream.pause, plan, str(locked))
            if error is not None:
                with self.changed:
                    self.leave_out(stream, error)
        except (psycopg2.Error, SingerPostgresError) as error:
            self.fail(stream, error)
        finally:
            with self.changed:
                stream.renewing = False

    def _resume(self, stream: OpenStream, snapshot: Snapshot) -> None:
        """Read the rest of a stream, or all of it again, under another snapshot.

        Raises:
            SingerPostgresError: the target knows other columns, or rows would be loaded twice.
        """
        plan, known = stream.plan, stream.layout
        change = known.change_under_name(snapshot.layout, columns=stream.columns_read)
        anew = change is not None or plan.method == "FULL_TABLE"
        selection = stream.selection
        if anew:
            selection = select_again(stream, snapshot, change, most_epochs=_MOST_RESTARTS)
        with self.changed:
            if not stream.epoch.is_reading:
                self._retiring.append(snapshot)
                return
            stream.snapshot, stream.selection, stream.expired = snapshot, selection, False
            stream.layout, stream.relation = snapshot.layout, snapshot.relation
            stream.origin = replace(stream.origin, snapshot=snapshot.id, snapshot_at=snapshot.at, lsn=snapshot.lsn)
            stream.pause.over()
            if not anew:
                return
            self._ranges = deque(range_ for range_ in self._ranges if range_.stream is not stream)
            stream.epoch, stream.passes = stream.epoch.restarted(), stream.passes.begun_again()
            stream.origin = replace(stream.origin, resumed=())
            self._add(stream, self.queries.cut(stream))
            self._end_if_empty(stream)

    def pause(self, pause: Pause, plan: StreamPlan, locked_by: str) -> SingerPostgresError | None:
        """Postpone a stream whose table is locked; return its error if that takes too long."""
        try:
            pause.locked(plan.stream, locked_by, limit_s=self.queries.lock_timeout_s)
        except SingerPostgresError as error:
            return error
        return None

    def _release(self) -> None:
        """End the transactions of retired snapshots that no worker is about to use."""
        with self.changed:
            unneeded = [snapshot for snapshot in self._retiring if not snapshot.needed]
            self._retiring = [snapshot for snapshot in self._retiring if snapshot.needed]
        for snapshot in unneeded:
            self.queries.release(snapshot)
