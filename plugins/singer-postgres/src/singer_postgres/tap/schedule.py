"""Which range of which stream is read next, and under which snapshot: what the workers share, behind one lock."""

from __future__ import annotations

import logging
import random
import threading
import time
from collections import deque
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

import psycopg2

from singer_postgres.core import driver_errors
from singer_postgres.core.errors import LockBusyError, SingerPostgresError
from singer_postgres.core.wire import StreamEnd
from singer_postgres.tap.epochs import EpochState
from singer_postgres.tap.events import Event, Failed, Finished, Opened
from singer_postgres.tap.locks import GaveWayError, LockedError, Pause
from singer_postgres.tap.server import Server, Settings, tell_of_retry
from singer_postgres.tap.stream_planning import OpenStream, refuse_expired_snapshot, select_again
from singer_postgres.tap.tasks import Piece, Task, Unopened
from singer_postgres.tap.workers import Crowded

if TYPE_CHECKING:
    import queue
    from collections.abc import Callable, Iterable

    from singer_postgres.core.notices import Notices
    from singer_postgres.tap.connections import Source
    from singer_postgres.tap.snapshots import Snapshot
    from singer_postgres.tap.stream_plan import StreamPlan

_LOGGER = logging.getLogger("tap-postgres")
# how often a stream is begun anew after its connections broke, or after its table was changed
_MOST_EPOCHS = 4
# how often in a row a range is left to somebody who waits for it
_MOST_YIELDS = 8
# how long to wait at once for what another worker is about to find
_TICK_S = 1.0


class Schedule:
    """The streams of one run: their snapshots, and the ranges that are yet to be read.

    The lock is held for moments, never while a server is asked: a table that is locked keeps nobody from the others.
    """

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
        self.server = Server(source, settings, notices)
        self._unopened = deque(Unopened(plan) for plan in plans)
        self._opening = False
        self._settings = settings
        self._events = events
        self._changed = threading.Condition()
        self._pieces: deque[Piece] = deque()
        self._retiring: list[Snapshot] = []

    # what workers ask for

    def next(self) -> Task | None:
        """Return the next range to read; None if there is nothing left.

        Streams are opened in their order, and one whose table is locked when its turn comes is left for later.

        Raises:
            Crowded: there are no more connections to be had, and other workers have some.
        """
        while True:
            self._release()
            with self._changed:
                step = self._next_step()
                if isinstance(step, float):
                    self._changed.wait(step)
                    continue
            if step is None or isinstance(step, Task):
                return step
            try:
                step()
            finally:
                with self._changed:
                    self._changed.notify_all()

    def put_back(self, task: Task) -> None:
        """Leave a range that was not begun to another worker."""
        with self._changed:
            task.snapshot.used()
            self._put_back(task)

    def entered(self, task: Task, *, locked: bool) -> None:
        """Note that the task's transaction has begun, or never will: its snapshot needs to be held no longer for it.

        Args:
            locked: the table was to be had.
        """
        with self._changed:
            task.snapshot.used()
            if locked:
                task.stream.pause.over()

    def announced(self, task: Task, event: Event) -> bool:
        """Hand on what was read; return False if its stream has failed, or was begun anew.

        A stream's end is the last event of it: whoever takes the events listens no longer then.
        """
        with self._changed:
            if not task.epoch.is_reading:
                return False
            task.epoch.announced = True
            self._events.put(event)
            return True

    def recut(self, task: Task) -> None:
        """Read in ranges what turned out to be more than one chunk."""
        with self._changed:
            if task.epoch.is_reading:
                self._add(task.stream, self.server.cut(task.stream))
                self._finish(task)

    def done(self, task: Task) -> None:
        """Count a range off."""
        with self._changed:
            task.stream.yields = task.stream.breaks = 0
            self._finish(task)

    def give_up(self, stream: OpenStream, error: Exception) -> None:
        """Leave out the rest of a stream that can't be read."""
        error = self.server.named(error, stream.plan)
        with self._changed:
            self._leave_out(stream, error)

    # a range that was not read to its end

    def locked_out(self, task: Task, locked_by: str) -> None:
        """Put back a range of a table that is locked, or that somebody waits for."""
        stream = task.stream
        error = self._pause(stream.pause, stream.plan, locked_by)
        with self._changed:
            self._leave_out(stream, error) if error is not None else self._put_back(task)

    def gave_way(self, task: Task, waiter: str, *, announced: bool) -> None:
        """Put back a range that was left unfinished, as somebody waited for it.

        Args:
            announced: some of it was.
        """
        stream, plan = task.stream, task.stream.plan
        with self._changed:
            if not task.epoch.is_reading:
                return
            stream.yields += 1
            stream.pause.longer()
            what = f"Reading {plan.stream} left {stream.relation} to {waiter}, which waited for it"
            why = None
            if announced and plan.method == "INCREMENTAL" and not plan.key:
                why = "; without a key it can't go on, as rows would double"
            elif stream.yields > _MOST_YIELDS:
                why = f", {stream.yields} times in a row"
            if why is not None:
                self._leave_out(stream, LockBusyError(f"{what}{why}. Run this again when that is over."))
                return
            _LOGGER.info("%s; it is read again", what)
            if announced:
                # chunks of one snapshot hold each row once
                self._begin_again(task)
            else:
                self._put_back(task)

    def changed(self, task: Task, change: str) -> None:
        """Begin a stream anew whose table was changed."""
        with self._changed:
            if task.epoch.is_reading:
                _LOGGER.warning("Reading %s is begun anew: %s", task.stream.plan.stream, change)
                self._begin_again(task)

    def broke(self, task: Task, error: psycopg2.Error) -> None:
        """Read a range again, under a new snapshot, whose connection broke; a stream that is read whole all of it."""
        stream, plan = task.stream, task.stream.plan
        why = None
        if plan.method == "INCREMENTAL" and not plan.key:
            # with one, what comes again replaces what came under the old snapshot
            why = "; without a key it can't go on, as rows would double. Run this again"
        elif stream.epoch.number >= _MOST_EPOCHS:
            why = f", again and again, in {stream.epoch.number + 1} attempts"
        elif stream.breaks >= driver_errors.TRIES - 1:
            why = ""
        failed = self.server.named(error, plan, why) if why is not None else None
        with self._changed:
            if not task.epoch.is_reading:
                return
            if failed is not None:
                self._leave_out(stream, failed)
                return
            wait_s = random.uniform(0, driver_errors.longest_wait_s(stream.breaks))  # noqa: S311 - no secret
            tell_of_retry(plan, error, wait_s)
            stream.breaks += 1
            stream.pause.until = max(stream.pause.until, time.monotonic() + wait_s)
            self._begin_again(task)

    def expire(self) -> None:
        """Give up snapshots that are too old, though nobody asked for another: the target may stand still."""
        with self._changed:
            for stream in {id(piece[0]): piece[0] for piece in self._pieces}.values():
                self._expire(stream)
        self._release()

    # with the lock held

    def _next_step(self) -> Task | Callable[[], None] | float | None:
        """Return a range to read, or what to do before one can be, or how long to wait; None if all is handed out."""
        waits: list[float] = []
        seen: set[int] = set()
        for number, piece in enumerate(self._pieces):
            stream = piece[0]
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
            del self._pieces[number]
            task = Task(stream, stream.snapshot, *piece[1:], stream.epoch)
            task.snapshot.use()
            if not any(other[0] is stream for other in self._pieces):
                self._retire(stream)
            return task
        for unopened in self._unopened:
            if self._opening or unopened.pause.left_s:
                waits.append(unopened.pause.left_s or _TICK_S)
                continue
            self._opening = True
            return partial(self._open, unopened)
        return min(waits, default=None)

    def _expire(self, stream: OpenStream) -> None:
        if stream.snapshot and stream.snapshot.age_s > self._settings.snapshot_s:
            self._retire(stream)
            stream.expired = True

    def _put_back(self, task: Task) -> None:
        """Have a range read again, under the same snapshot if that is still there."""
        stream = task.stream
        if not task.epoch.is_reading:
            return
        if stream.snapshot is None and task.snapshot in self._retiring:
            self._retiring.remove(task.snapshot)
            stream.snapshot = task.snapshot
        self._pieces.appendleft(task.piece)
        self._changed.notify_all()

    def _begin_again(self, task: Task) -> None:
        """Have a range read under another snapshot, which begins its stream anew if that has to be."""
        self._put_back(task)
        self._retire(task.stream)

    def _add(self, stream: OpenStream, pieces: list[Piece]) -> None:
        stream.epoch.pending_ranges += len(pieces)
        self._pieces.extend(pieces)
        self._changed.notify_all()

    def _end_if_empty(self, stream: OpenStream) -> None:
        if not stream.epoch.pending_ranges:
            self._retire(stream)
            stream.epoch.state = EpochState.FINISHED
            self._events.put(Finished(stream.plan, StreamEnd(**stream.origin.common)))

    def _finish(self, task: Task) -> None:
        """Count a range off, unless its stream failed or was begun anew."""
        if task.epoch.is_reading:
            task.epoch.pending_ranges -= 1
            self._end_if_empty(task.stream)

    def _leave_out(self, stream: OpenStream, error: Exception) -> None:
        self._pieces = deque(piece for piece in self._pieces if piece[0] is not stream)
        self._retire(stream)
        if stream.epoch.is_reading:
            stream.epoch.state = EpochState.FAILED
            self._events.put(Failed(error, stream.plan))

    def _retire(self, stream: OpenStream) -> None:
        if stream.snapshot:
            self._retiring.append(stream.snapshot)
            stream.snapshot = None

    # without the lock: these ask the server

    def _open(self, unopened: Unopened) -> None:
        """Open a stream, or leave it for later if its table is locked."""
        plan = unopened.plan
        over = True
        try:
            stream, pieces = self.server.tried(plan, partial(self.server.opened, plan))
        except (LockedError, GaveWayError) as locked:
            error = self._pause(unopened.pause, plan, str(locked))
            over = error is not None
            if error is not None:
                self._events.put(Failed(error, plan))
        except Crowded:
            over = False
            raise
        except (psycopg2.Error, SingerPostgresError) as error:
            self._events.put(Failed(self.server.named(error, plan), plan))
        else:
            table, shape = self.server.described(stream)
            with self._changed:
                self._events.put(Opened(stream.plan, table, shape, stream.relation.rows))
                self._add(stream, pieces)
                self._end_if_empty(stream)
        finally:
            with self._changed:
                self._opening = False
                if over:
                    self._unopened.remove(unopened)

    def _renew(self, stream: OpenStream) -> None:
        """Go on under a new snapshot, or begin the stream anew if it can't go on under another."""
        plan = stream.plan
        try:
            refuse_expired_snapshot(stream, self._settings.snapshot_s)
            snapshot = self.server.tried(plan, partial(self.server.snapshot, stream))
            try:
                self._resume(stream, snapshot)
            except BaseException:
                self.server.hand_back(snapshot)
                raise
        except (LockedError, GaveWayError) as locked:
            error = self._pause(stream.pause, plan, str(locked))
            if error is not None:
                with self._changed:
                    self._leave_out(stream, error)
        except (psycopg2.Error, SingerPostgresError) as error:
            self.give_up(stream, error)
        finally:
            with self._changed:
                stream.renewing = False

    def _resume(self, stream: OpenStream, snapshot: Snapshot) -> None:
        """Read the rest of a stream, or all of it again, under another snapshot.

        Raises:
            SingerPostgresError: the target was told of other columns, or rows would double.
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
            self._pieces = deque(piece for piece in self._pieces if piece[0] is not stream)
            stream.epoch = stream.epoch.restarted()
            stream.origin = replace(stream.origin, resumed=())
            self._add(stream, self.server.cut(stream))
            self._end_if_empty(stream)

    def _pause(self, pause: Pause, plan: StreamPlan, locked_by: str) -> SingerPostgresError | None:
        """Leave a table alone that is locked; return the stream's error if that takes too long."""
        try:
            pause.locked(plan.stream, locked_by, limit_s=self.server.lock_timeout_s)
        except SingerPostgresError as error:
            return error
        return None

    def _release(self) -> None:
        """End the transactions of retired snapshots that nobody is about to use."""
        with self._changed:
            unneeded = [snapshot for snapshot in self._retiring if not snapshot.needed]
            self._retiring = [snapshot for snapshot in self._retiring if snapshot.needed]
        for snapshot in unneeded:
            self.server.hand_back(snapshot)
