"""Loads chunks, several at once, and says when each is committed.

Workers take chunks in the order in which they came, each with a connection of its own. A stream's chunks commit in
order; its end waits for all of them. What may pass by itself (a server that restarts) is tried again; what a stream
alone can't get over ends that stream, and the rest goes on.
"""

from __future__ import annotations

import logging
import queue
import signal
import threading
import time
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import psycopg

from singer_postgres.core import driver_errors, poolers
from singer_postgres.core.errors import one_line
from singer_postgres.core.warehouse import manual_changes
from singer_postgres.core.warehouse.connections import end_session, was_committed
from singer_postgres.target.stream_load import Attempt

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from singer_postgres.core.warehouse.connections import Warehouse
    from singer_postgres.core.warehouse.row_counts import RowCounts
    from singer_postgres.core.warehouse.run_lock import RunLock
    from singer_postgres.core.wire import Chunk
    from singer_postgres.target.stream_load import StreamLoad

    Connection = psycopg.Connection[Any]

_LOGGER = logging.getLogger("target-postgres")
# a chunk takes seconds; one that takes this long is named in the log, and again after each further period
_OVERDUE_S = 60.0
_BLOCKERS = """
    select coalesce(string_agg(concat('pid ', pid, ' (', usename, ', ', nullif(application_name, ''), ')'), ', '), '')
    from pg_catalog.pg_stat_activity where pid = any(pg_blocking_pids(%s))
"""

_CROWDED = (
    "; loading needs two connections at once, of which one keeps other runs out (max_parallel = 1): raise the limit of "
    "the role, the database or the server"
)


@dataclass
class _Stream:
    """Whose turn it is to commit, of one stream's chunks; and whether it failed."""

    given: int = 0
    done: int = 0
    failed: bool = False
    changed: threading.Condition = field(default_factory=threading.Condition)

    def tell(self) -> None:
        """Wake those that wait for their turn."""
        with self.changed:
            self.changed.notify_all()


@dataclass(frozen=True)
class _Job:
    number: int
    load: StreamLoad
    chunk: Chunk
    path: Path | None
    stream: _Stream
    turn: int


@dataclass
class _Worker:
    """A thread's connection, made when it is needed."""

    warehouse: Warehouse
    connection: Connection | None = None
    job: _Job | None = None
    since: float = 0.0
    """When it took its job, by the monotonic clock."""
    pid: int | None = None
    """Process id of the last session; there is no connection if it broke."""

    def connect(self) -> Connection:
        """Return a connection that is open."""
        if self.connection is None:
            self.connection = self.warehouse.connect_once()
            if self.pid is not None:
                end_session(self.connection, self.pid)
            self.pid = poolers.server_pid(self.connection)
        return self.connection

    def close(self) -> None:
        """Close it."""
        if self.connection is not None:
            with suppress(psycopg.Error):
                self.connection.close()
        self.connection = None


class Stopped(Exception):  # noqa: N818 - not an error: another worker's is told
    """The run is over, or the stream's is."""


class ChunkLoaders:
    """The chunks of one run being loaded."""

    def __init__(
        self,
        warehouse: Warehouse,
        lock: RunLock,
        *,
        parallel: int,
        committed: Callable[[int, StreamLoad, Chunk, RowCounts], None],
        failed: Callable[[int, StreamLoad, Exception | None], bool],
    ) -> None:
        """Begin.

        Args:
            parallel: chunks loaded at once.
            committed: called with each chunk that is committed, from any thread.
            failed: called with each chunk of a stream that failed, from any thread, and with the reason if it is that;
                returns whether the other streams go on.
        """
        self._warehouse = warehouse
        self._lock = lock
        self._committed = committed
        self._failed = failed
        self._parallel = parallel
        self._jobs: queue.Queue[_Job | None] = queue.Queue()
        self._streams: dict[str, _Stream] = {}
        self._threads: list[threading.Thread] = []
        self._workers: list[_Worker] = []
        self._opening, self._joining = threading.Lock(), threading.Lock()
        self._begun, self._stopped, self._ended = threading.Event(), threading.Event(), threading.Event()
        self._joined = 0
        self._error: Exception | None = None
        self._reached = False

    def submit(self, number: int, load: StreamLoad, chunk: Chunk, path: Path | None) -> None:
        """Have a chunk loaded.

        Raises:
            SingerPostgresError, psycopg.Error: one before it could not be loaded.
        """
        self.raise_error()
        stream = self._streams.setdefault(load.stream, _Stream())
        self._jobs.put(_Job(number, load, chunk, path, stream, stream.given))
        stream.given += 1
        if not self._workers:
            threading.Thread(target=self._watch, name="loader-watch", daemon=True).start()
        if len(self._threads) < self._parallel:
            thread = threading.Thread(target=self._work, name=f"loader-{len(self._threads)}", daemon=True)
            self._threads.append(thread)
            thread.start()

    def wait(self) -> None:
        """Return once all is loaded.

        Raises:
            SingerPostgresError, psycopg.Error: something could not be loaded.
        """
        for _ in self._threads:
            self._jobs.put(None)
        for thread in self._threads:
            # however long it takes: the watch says what it waits for
            thread.join()
        self._threads.clear()
        self._ended.set()
        self.raise_error()

    def raise_error(self) -> None:
        """Raise what a worker met, if one did."""
        if self._error is not None:
            raise self._error

    def _work(self) -> None:
        worker = _Worker(self._warehouse)
        self._workers.append(worker)
        try:
            if not self._finds_room(worker):
                return
            while (job := self._next()) is not None:
                worker.job, worker.since = job, time.monotonic()
                try:
                    self._load(worker, job)
                except Stopped:
                    self._discard(job)
                except Exception as error:  # noqa: BLE001 - whatever it is, the main thread is to know
                    doing = f"Loading {job.load.stream} into {job.load.schema}.{job.load.table.name}"
                    of_stream = driver_errors.ends_one_stream(error, writing=True)
                    more = manual_changes.advice(
                        error, job.load.schema, job.load.table.name, stale_key=job.load.stale_key
                    )
                    more = more or manual_changes.room(error, job.load.schema, job.load.table)
                    more = _CROWDED if driver_errors.is_out_of_connections(error) else more
                    named = driver_errors.wrap_driver_error(error, doing, more, of_stream=of_stream)
                    if not of_stream or not self._give_up(job, named):
                        self._fail(named)
                finally:
                    worker.job = None
        except Exception as error:  # noqa: BLE001
            self._fail(error)
        finally:
            worker.close()

    def _watch(self) -> None:
        """Say what chunks wait for that take long."""
        while not self._ended.wait(_OVERDUE_S):
            for worker in self._workers:
                job, seconds = worker.job, time.monotonic() - worker.since
                if job is None or seconds < _OVERDUE_S:
                    continue
                _LOGGER.warning(
                    "Loading a chunk of %s has taken %.0f s so far%s", job.load.stream, seconds, self._why(worker)
                )

    def _why(self, worker: _Worker) -> str:
        with suppress(Exception), self._warehouse.connect_once() as connection:
            row = connection.execute(_BLOCKERS, [worker.pid]).fetchone()
            if row and row[0]:
                return f": it waits for {row[0]}"
        return ""

    def _finds_room(self, worker: _Worker) -> bool:
        """Return False if the warehouse takes no more connections, and other workers are there to load the rest."""
        with self._joining:
            if not self._joined:
                self._joined = 1
                return True
            # a load does with one worker, and not without the connection that holds its lock
            while not self._begun.wait(timeout=0.5):
                if self._stopped.is_set():
                    return False
            try:
                worker.connect()
            except psycopg.Error as error:
                if driver_errors.is_out_of_connections(error):
                    what = one_line(error)
                    _LOGGER.warning("Loading with %d at once, and not with more (max_parallel): %s", self._joined, what)
                    return False
                # to be met again where it is tried more than once
            self._joined += 1
            return True

    def _next(self) -> _Job | None:
        while not self._stopped.is_set():
            with suppress(queue.Empty):
                return self._jobs.get(timeout=0.5)
        return None

    def _load(self, worker: _Worker, job: _Job) -> None:
        """Load a job's chunk.

        Raises:
            Stopped: the run or the stream is over.
            SingerPostgresError, psycopg.Error: it can't be loaded.
        """

        def is_over() -> bool:
            return self._stopped.is_set() or job.stream.failed

        def my_turn() -> None:
            with job.stream.changed:
                job.stream.changed.wait_for(lambda: job.stream.done == job.turn or is_over())
            if is_over():
                raise Stopped

        if is_over():
            raise Stopped
        if job.turn == 0:
            # one at a time: two that make the same schema at once would trip over each other
            try:
                with self._opening:
                    self._tried(worker, job, lambda connection, _: job.load.open(connection, job.chunk))
            finally:
                self._begun.set()
            job.load.opened.set()
        while not job.load.opened.wait(timeout=0.5):
            if is_over():
                raise Stopped
        if job.chunk.last:
            my_turn()
            written = self._tried(
                worker, job, lambda connection, attempt: job.load.finish(connection, job.chunk, attempt=attempt)
            )
        else:
            written = self._tried(
                worker,
                job,
                lambda connection, attempt: job.load.load(
                    connection, job.chunk, job.path, my_turn=my_turn, attempt=attempt
                ),
            )
        job.load.committed(job.chunk, written)
        # room for the next one: the rows are safe
        if job.path is not None:
            job.path.unlink(missing_ok=True)
        with job.stream.changed:
            job.stream.done += 1
            job.stream.changed.notify_all()
        self._committed(job.number, job.load, job.chunk, written)

    def _tried(self, worker: _Worker, job: _Job, step: Callable[[Connection, Attempt], None]) -> RowCounts:
        """Carry out a step, again if need be; return what it wrote.

        A step whose connection broke as it committed may be done: the server knows by its transaction's id.
        """
        attempt, again = Attempt(), False

        def once() -> None:
            connection = worker.connect()
            self._reached = True
            if again:
                # its connection may be gone too, and another run have come
                self._lock.renew()
                if job.load.opened.is_set():
                    job.load.confirm(connection)
            if attempt.xid is not None and was_committed(connection, attempt.xid):
                return
            attempt.xid = None
            try:
                step(connection, attempt)
            except BaseException:
                # and with it the stage, which the transaction made
                worker.close()
                raise

        def told(error: BaseException, wait_s: float) -> None:
            nonlocal again
            again = True
            worker.close()
            what = one_line(error)
            _LOGGER.warning("Loading %s is tried again in %.1f s: %s", job.load.stream, wait_s, what)

        def passes(error: BaseException) -> bool:
            return not self._stopped.is_set() and driver_errors.is_transient(error, reached=self._reached)

        driver_errors.retry(once, is_transient=passes, on_retry=told)
        return attempt.written

    def _give_up(self, job: _Job, error: Exception) -> bool:
        """End the job's stream alone; return whether the others go on."""
        first = not job.stream.failed
        job.stream.failed = True
        job.stream.tell()
        if not self._failed(job.number, job.load, error if first else None):
            return False
        self._remove(job)
        return True

    def _discard(self, job: _Job) -> None:
        """Leave out a chunk of a stream that failed, if the run goes on."""
        if not self._stopped.is_set():
            self._failed(job.number, job.load, None)
            self._remove(job)

    def _remove(self, job: _Job) -> None:
        """Make room for the chunks of other streams: this one is not coming in."""
        if job.path is not None:
            job.path.unlink(missing_ok=True)

    def _fail(self, error: Exception) -> None:
        first = self._error is None
        if first:
            self._error = error
        self._stopped.set()
        for stream in list(self._streams.values()):
            stream.tell()
        if not first:
            # the main thread knows, and is not to be disturbed in telling it
            return
        # it may be waiting for input that will not come before there is room for it
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGUSR1)
