"""Decides which range of which stream is read next, and under which snapshot. All workers share it, behind one lock."""

from __future__ import annotations

import logging
import random
import threading
import time
from collections import deque
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING

import psycopg2

from singer_postgres.core import driver_errors
from singer_postgres.core.errors import LockBusyError, SingerPostgresError, SnapshotExpiredError
from singer_postgres.core.wire import StreamEnd
from singer_postgres.tap.chunk_files import ChunkWriter
from singer_postgres.tap.epochs import EpochState
from singer_postgres.tap.events import Event, Failed, Finished, Opened
from singer_postgres.tap.locks import LockedError, Pause, ReadInterruptedError
from singer_postgres.tap.passes import Passes
from singer_postgres.tap.range_lease import Range, RangeLease, StaleError
from singer_postgres.tap.snapshots import ChangedError
from singer_postgres.tap.source_queries import ReadSettings, SourceQueries
from singer_postgres.tap.stream_restart import refuse_expired_snapshot, select_again
from singer_postgres.tap.worker_count import Crowded

if TYPE_CHECKING:
    import queue
    from collections.abc import Callable, Iterable, Iterator

    from psycopg2.extensions import connection as Connection  # noqa: N812

    from singer_postgres.core.notices import Notices
    from singer_postgres.core.worker_connection import WorkerConnection
    from singer_postgres.tap.connections import SourceConnector
    from singer_postgres.tap.snapshots import Snapshot
    from singer_postgres.tap.stream_plan import StreamPlan
    from singer_postgres.tap.stream_planning import OpenStream

_LOGGER = logging.getLogger("tap-postgres")
# how often a stream restarts after broken connections or changes of its table
_MOST_EPOCHS = 4
# how often in a row a range is interrupted for sessions that wait for its table
_MOST_YIELDS = 8
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
        self._changed = threading.Condition()
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
            with self._changed:
                step = self._next_step(worker)
                if isinstance(step, float):
                    self._changed.wait(step)
                    continue
            if step is None or isinstance(step, RangeLease):
                return step
            try:
                step()
            finally:
                with self._changed:
                    self._changed.notify_all()

    @contextmanager
    def reading(self, lease: RangeLease) -> Iterator[None]:
        """Handle the outcome of reading a range, for the range and for its stream.

        Errors of the stream end here: the range is read later, its stream restarts, or its stream fails.

        Raises:
            Crowded: there is no connection to read it on. Another worker has one and reads the range.
        """
        try:
            yield
        except Crowded:
            self._not_read(lease)
            raise
        except StaleError:
            # the stream has restarted and reads the range again, or it has failed
            pass
        except ChunkWriter.Overflow:
            self._cut(lease)
        except LockedError as error:
            self._locked_out(lease, str(error))
        except ReadInterruptedError as error:
            self._gave_way(lease, str(error))
        except ChangedError as error:
            self._table_changed(lease, str(error))
        except (psycopg2.Error, SingerPostgresError) as error:
            if isinstance(error, psycopg2.Error) and driver_errors.is_transient(error):
                self._broke(lease, error)
            else:
                self._fail(lease.stream, error)
        else:
            self._done(lease)
        finally:
            lease.release_snapshot()

    def expire(self) -> None:
        """Give up snapshots that are too old, even if no worker asks for a range: the target may have stopped."""
        with self._changed:
            for stream in {id(range_.stream): range_.stream for range_ in self._ranges}.values():
                self._expire(stream)
        self._release()

    # the outcomes of a range

    def _done(self, lease: RangeLease) -> None:
        with self._changed:
            lease.stream.yields = lease.stream.breaks = 0
            lease.stream.progress_at = time.monotonic()
            self._finish(lease)

    def _not_read(self, lease: RangeLease) -> None:
        """Leave an unread range to another worker."""
        with self._changed:
            self._put_back(lease)

    def _cut(self, lease: RangeLease) -> None:
        """Cut what turned out to be far more than was expected."""
        with self._changed:
            if not lease.epoch.is_reading:
                return
            self._put_back(lease, cut=True)
            if lease.announced:
                # the chunks of one snapshot must contain each row once
                self._retire(lease.stream)

    def _fail(self, stream: OpenStream, error: Exception) -> None:
        """Fail a stream that can't be read, and drop the rest of it."""
        error = self.queries.wrap_error(error, stream.plan)
        with self._changed:
            self._leave_out(stream, error)

    def _locked_out(self, lease: RangeLease, locked_by: str) -> None:
        """Put back a range of a table that is locked, or that another session waits for."""
        stream = lease.stream
        error = self._pause(stream.pause, stream.plan, locked_by)
        with self._changed:
            self._leave_out(stream, error) if error is not None else self._put_back(lease)

    def _gave_way(self, lease: RangeLease, waiter: str) -> None:
        """Put back a range that was interrupted because another session waited for its table."""
        stream, plan = lease.stream, lease.stream.plan
        with self._changed:
            if not lease.epoch.is_reading:
                return
            stream.yields += 1
            stream.pause.longer()
            what = f"Reading {plan.stream} released {stream.relation} for a waiting session, {waiter}"
            why = None
            if lease.announced and plan.method == "INCREMENTAL" and not plan.key:
                why = "; without a primary key it can't resume, because rows would be loaded twice"
            elif stream.yields > _MOST_YIELDS:
                why = f", {stream.yields} times in a row"
            if why is not None:
                self._leave_out(stream, LockBusyError(f"{what}{why}. Run this again when that session has ended."))
                return
            _LOGGER.info("A range is read again: reason=%s", what)
            if lease.announced:
                # the chunks of one snapshot must contain each row once
                self._begin_again(lease)
            else:
                self._put_back(lease)

    def _table_changed(self, lease: RangeLease, change: str) -> None:
        """Restart a stream after its table changed."""
        with self._changed:
            if lease.epoch.is_reading:
                _LOGGER.warning("Reading restarts: stream=%s, reason=%s", lease.stream.plan.stream, change)
                self._begin_again(lease)

    def _broke(self, lease: RangeLease, error: psycopg2.Error) -> None:
        """Read a range again under a new snapshot after its connection broke; a FULL_TABLE stream restarts."""
        stream, plan = lease.stream, lease.stream.plan
        why = None
        if plan.method == "INCREMENTAL" and not plan.key:
            # with a key, rows that are read again replace the rows of the old snapshot
            why = "; without a primary key it can't resume, because rows would be loaded twice. Run this again"
        elif stream.epoch.number >= _MOST_EPOCHS:
            why = f", in {stream.epoch.number + 1} attempts"
        elif stream.breaks >= driver_errors.TRIES - 1:
            why = ""
        failed = self.queries.wrap_error(error, plan, why) if why is not None else None
        with self._changed:
            if not lease.epoch.is_reading:
                return
            if failed is not None:
                self._leave_out(stream, failed)
                return
            wait_s = random.uniform(0, driver_errors.longest_wait_s(stream.breaks))  # noqa: S311 - no secret
            self.queries.note_retry(plan, error, wait_s)
            stream.breaks += 1
            stream.pause.until = max(stream.pause.until, time.monotonic() + wait_s)
            self._begin_again(lease)

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
            lease = RangeLease(range_, stream.snapshot, self._changed, self._events)
            if not any(other.stream is stream for other in self._ranges):
                self._retire(stream)
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
            self._retire(stream)

    def _put_back(self, lease: RangeLease, *, cut: bool = False) -> None:
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
        self._changed.notify_all()

    def _begin_again(self, lease: RangeLease) -> None:
        """Queue a range again under a new snapshot, which restarts the stream if it can't resume."""
        # a second attempt at many files in one statement could be interrupted like the first
        self._put_back(lease, cut=lease.announced and lease.range.most_files is not None)
        self._retire(lease.stream)

    def _add(self, stream: OpenStream, ranges: list[Range]) -> None:
        stream.epoch.pending_ranges += len(ranges)
        self._ranges.extend(ranges)
        self._changed.notify_all()

    def _end_if_empty(self, stream: OpenStream) -> None:
        if not stream.epoch.pending_ranges:
            self._retire(stream)
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
            self._leave_out(stream, SnapshotExpiredError(msg))
            return
        stream.passes = stream.passes.next()
        what = "What was written while it was read is read again: stream=%s, since=transaction %s"
        _LOGGER.info(what, stream.plan.stream, stream.passes.since)
        self._add(stream, self.queries.cut(stream))

    def _finish(self, lease: RangeLease) -> None:
        """Count a range as done, unless its stream failed or restarted."""
        if lease.epoch.is_reading:
            lease.stream.passes.add(lease.snapshot)
            lease.epoch.pending_ranges -= 1
            self._end_if_empty(lease.stream)

    def _leave_out(self, stream: OpenStream, error: Exception) -> None:
        self._ranges = deque(range_ for range_ in self._ranges if range_.stream is not stream)
        self._retire(stream)
        if stream.epoch.is_reading:
            stream.epoch.state = EpochState.FAILED
            self._events.put(Failed(error, stream.plan))

    def _retire(self, stream: OpenStream) -> None:
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
            error = self._pause(unopened.pause, plan, str(locked))
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
            with self._changed:
                self._events.put(Opened(stream.plan, table, columns, stream.relation.rows, stream.passes.first))
                self._add(stream, ranges)
                self._end_if_empty(stream)
        finally:
            with self._changed:
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
            error = self._pause(stream.pause, plan, str(locked))
            if error is not None:
                with self._changed:
                    self._leave_out(stream, error)
        except (psycopg2.Error, SingerPostgresError) as error:
            self._fail(stream, error)
        finally:
            with self._changed:
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
            selection = select_again(stream, snapshot, change, most_epochs=_MOST_YIELDS)
        with self._changed:
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
            stream.epoch, stream.passes = stream.epoch.restarted(), Passes()
            stream.origin = replace(stream.origin, resumed=())
            self._add(stream, self.queries.cut(stream))
            self._end_if_empty(stream)

    def _pause(self, pause: Pause, plan: StreamPlan, locked_by: str) -> SingerPostgresError | None:
        """Postpone a stream whose table is locked; return its error if that takes too long."""
        try:
            pause.locked(plan.stream, locked_by, limit_s=self.queries.lock_timeout_s)
        except SingerPostgresError as error:
            return error
        return None

    def _release(self) -> None:
        """End the transactions of retired snapshots that no worker is about to use."""
        with self._changed:
            unneeded = [snapshot for snapshot in self._retiring if not snapshot.needed]
            self._retiring = [snapshot for snapshot in self._retiring if snapshot.needed]
        for snapshot in unneeded:
            self.queries.release(snapshot)
