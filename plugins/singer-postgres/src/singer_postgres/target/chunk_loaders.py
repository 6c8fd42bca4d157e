"""Loads several chunks at once, and reports each commit.

Each worker has its own connection and takes the chunks in their order of arrival. The chunks of a stream commit in
order, and its end waits for all of them. Transient errors (a server restart) are retried. An error that concerns only
one stream ends that stream, and the others go on.
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

from singer_postgres.core import driver_errors
from singer_postgres.core.errors import one_line
from singer_postgres.core.warehouse import manual_changes
from singer_postgres.core.warehouse.connections import end_session, was_committed
from singer_postgres.core.wire import StreamEnd
from singer_postgres.core.worker_connection import WorkerConnection
from singer_postgres.target.stream_load import Attempt

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from singer_postgres.core.warehouse.connections import WarehouseConnector
    from singer_postgres.core.warehouse.row_counts import RowCounts
    from singer_postgres.core.warehouse.run_lock import RunLock
    from singer_postgres.core.wire import ReadBatch
    from singer_postgres.target.stream_load import StreamLoad

    Connection = psycopg.Connection[Any]

_LOGGER = logging.getLogger("target-postgres")
# A chunk takes seconds. After this long, and after each further period, a warning names it.
_OVERDUE_S = 60.0
_BLOCKERS = """
    select string_agg(distinct case
        when pid = 0 then 'a prepared transaction'
        else concat('pid ', pid, ' (', usename, ', ', nullif(application_name, ''), ')')
    end, ', ')
    from unnest(pg_blocking_pids(%s)) pid left join pg_catalog.pg_stat_activity using (pid)
"""

_CROWDED = (
    "; loading needs at least two connections (max_parallel = 1), and one of them holds the run's locks: raise the "
    "limit of the role, the database or the server"
)


@dataclass
class _Stream:
    """The turns in which one stream's chunks commit, and whether the stream failed."""

    given: int = 0
    done: int = 0
    failed: bool = False
    changed: threading.Condition = field(default_factory=threading.Condition)

    def tell(self) -> None:
        """Wake the threads that wait for their turn."""
        with self.changed:
            self.changed.notify_all()


@dataclass(frozen=True)
class _Job:
    number: int
    load: StreamLoad
    batch: ReadBatch
    path: Path | None
    stream: _Stream
    turn: int


class _Worker(WorkerConnection["Connection"]):
    """A thread's connection and what it does.

    Attributes:
        job: the chunk that it loads.
        since: when it took its job, by the monotonic clock.
    """

    def __init__(self, warehouse: WarehouseConnector) -> None:
        super().__init__(warehouse.connect_once, end_previous=end_session)
        self.job: _Job | None = None
        self.since = 0.0


class LoadingStopped(Exception):  # noqa: N818 - not an error: another worker reports the cause
    """The run or the stream has ended."""


class ChunkLoaders:
    """Loads the chunks of one run."""

    def __init__(
        self,
        warehouse: WarehouseConnector,
        lock: RunLock,
        *,
        parallel: int,
        committed: Callable[[int, StreamLoad, ReadBatch, RowCounts], None],
        failed: Callable[[int, StreamLoad, Exception | None], bool],
    ) -> None:
        """Prepare the loaders. They start with the first chunk.

        Args:
            parallel: the number of chunks to load at once.
            committed: called from any thread for each committed chunk.
            failed: called from any thread for each chunk of a failed stream, with the error for the first of them;
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
        self._joining = threading.Lock()
        self._begun, self._stopped, self._ended = threading.Event(), threading.Event(), threading.Event()
        self._joined = 0
        self._error: Exception | None = None
        self._reached = False

    def submit(self, number: int, load: StreamLoad, batch: ReadBatch, path: Path | None) -> None:
        """Queue a chunk.

        Raises:
            SingerPostgresError, psycopg.Error: an earlier chunk could not be loaded.
        """
        self.raise_error()
        stream = self._streams.setdefault(load.stream, _Stream())
        self._jobs.put(_Job(number, load, batch, path, stream, stream.given))
        stream.given += 1
        if not self._workers:
            threading.Thread(target=self._watch, name="loader-watch", daemon=True).start()
        if len(self._threads) < self._parallel:
            thread = threading.Thread(target=self._work, name=f"loader-{len(self._threads)}", daemon=True)
            self._threads.append(thread)
            thread.start()

    def wait(self) -> None:
        """Wait until all chunks are loaded.

        Raises:
            SingerPostgresError, psycopg.Error: a chunk could not be loaded.
        """
        for _ in self._threads:
            self._jobs.put(None)
        for thread in self._threads:
            # without a limit: the watch thread logs what a slow chunk waits for
            thread.join()
        self._threads.clear()
        self._ended.set()
        self.raise_error()

    def raise_error(self) -> None:
        """Raise the error of a worker, if there was one."""
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
                except LoadingStopped:
                    self._discard(job)
                except Exception as error:  # noqa: BLE001 - the main thread must learn of any error
                    doing = f"Loading {job.load.stream} into {job.load.schema}.{job.load.table.name}"
                    of_stream = driver_errors.ends_one_stream(error, writing=True)
                    more = manual_changes.advice(
                        error, job.load.schema, job.load.table.name, stale_key=job.load.stale_key
                    )
                    more = more or manual_changes.room(error, job.load.schema, job.load.table)
                    more = _CROWDED if driver_errors.is_out_of_connections(error) else more
                    named = driver_errors.wrap_driver_error(
                        error,
                        doing,
                        more,
                        side="warehouse",
                        of_stream=of_stream,
                        role=self._warehouse.parameters().get("user"),
                    )
                    if not of_stream or not self._give_up(job, named):
                        self._fail(named)
                finally:
                    worker.job = None
        except Exception as error:  # noqa: BLE001
            self._fail(error)
        finally:
            worker.close()

    def _watch(self) -> None:
        """Log what slow chunks wait for."""
        while not self._ended.wait(_OVERDUE_S):
            for worker in self._workers:
                job, seconds = worker.job, time.monotonic() - worker.since
                if job is None or seconds < _OVERDUE_S:
                    continue
                _LOGGER.warning(
                    "A chunk loads slowly: stream=%s, seconds=%.0f%s", job.load.stream, seconds, self._why(worker)
                )

    def _why(self, worker: _Worker) -> str:
        with suppress(Exception), self._warehouse.connect_once() as connection:
            row = connection.execute(_BLOCKERS, [worker.pid]).fetchone()
            if row and row[0]:
                return f", waits_for={row[0]}"
        return ""

    def _finds_room(self, worker: _Worker) -> bool:
        """Return False if the warehouse accepts no more connections and other workers can load the rest."""
        with self._joining:
            if not self._joined:
                self._joined = 1
                return True
            # one worker is enough for a load, but it also needs the connection that holds its locks
            while not self._begun.wait(timeout=0.5):
                if self._stopped.is_set():
                    return False
            try:
                worker.connect()
            except psycopg.Error as error:
                if driver_errors.is_out_of_connections(error):
                    what = one_line(error)
                    _LOGGER.warning("Loading with fewer workers: max_parallel=%d, error=%s", self._joined, what)
                    return False
                # other errors happen again in the load itself, which retries them
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
            LoadingStopped: the run or the stream has ended.
            SingerPostgresError, psycopg.Error: the chunk can't be loaded.
        """

        def is_over() -> bool:
            return self._stopped.is_set() or job.stream.failed

        def my_turn() -> None:
            with job.stream.changed:
                job.stream.changed.wait_for(lambda: job.stream.done == job.turn or is_over())
            if is_over():
                raise LoadingStopped

        if is_over():
            raise LoadingStopped
        self._open(worker, job)
        while not job.load.opened.wait(timeout=0.5):
            if is_over():
                raise LoadingStopped
        batch = job.batch
        if isinstance(batch, StreamEnd):
            my_turn()
            written = self._tried(
                worker, job, lambda connection, attempt: job.load.finish(connection, batch, attempt=attempt)
            )
        else:
            written = self._tried(
                worker,
                job,
                lambda connection, attempt: job.load.load(
                    connection, batch, job.path, my_turn=my_turn, attempt=attempt
                ),
            )
        job.load.committed(job.batch, written)
        if isinstance(batch, StreamEnd):
            job.load.finished.set()
        # free the disk for the next chunk, because the rows are committed
        if job.path is not None:
            job.path.unlink(missing_ok=True)
        with job.stream.changed:
            job.stream.done += 1
            job.stream.changed.notify_all()
        self._committed(job.number, job.load, job.batch, written)

    def _open(self, worker: _Worker, job: _Job) -> None:
        """Open a stream with its first chunk. A LOG_BASED stream may be described again, and is opened again then."""
        if job.turn and job.load.table.method != "LOG_BASED":
            return
        try:
            with job.load.opening:
                if not job.load.opened.is_set():
                    self._tried(worker, job, lambda connection, _: job.load.open(connection, job.batch))
                    job.load.opened.set()
        finally:
            self._begun.set()

    def _tried(self, worker: _Worker, job: _Job, step: Callable[[Connection, Attempt], None]) -> RowCounts:
        """Run a step, with retries, and return the rows that it wrote.

        If the connection breaks during the commit, the step may be done. The server tells by the transaction's id.
        """
        attempt, again = Attempt(), False

        def once() -> None:
            connection = worker.connect()
            self._reached = True
            if again:
                # the lock's connection may be gone too, and another run may have begun
                self._lock.renew()
                if job.load.opened.is_set():
                    job.load.confirm(connection)
            if attempt.xid is not None and was_committed(connection, attempt.xid):
                return
            attempt.xid = None
            try:
                step(connection, attempt)
            except BaseException:
                # this also drops the temporary stage, which the transaction may have created
                worker.close()
                raise

        def log_retry(error: BaseException, wait_s: float) -> None:
            nonlocal again
            again = True
            worker.close()
            job.load.effort.retried()
            what = one_line(error)
            _LOGGER.warning("Loading is retried: stream=%s, wait_s=%.1f, error=%s", job.load.stream, wait_s, what)

        def may_retry(error: BaseException) -> bool:
            return not self._stopped.is_set() and driver_errors.is_transient(error, reached=self._reached)

        driver_errors.retry(once, is_transient=may_retry, on_retry=log_retry)
        return attempt.written

    def _give_up(self, job: _Job, error: Exception) -> bool:
        """End only the job's stream, and return whether the others go on."""
        first = not job.stream.failed
        job.stream.failed = True
        job.stream.tell()
        if not self._failed(job.number, job.load, error if first else None):
            return False
        self._remove(job)
        return True

    def _discard(self, job: _Job) -> None:
        """Skip a chunk of a failed stream, if the run goes on."""
        if not self._stopped.is_set():
            self._failed(job.number, job.load, None)
            self._remove(job)

    def _remove(self, job: _Job) -> None:
        """Free the disk for other streams' chunks: this one will not be loaded."""
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
            # the main thread already knows, and must not be interrupted while it reports
            return
        # it may be waiting for input that the tap can't write before the disk has room
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGUSR1)
