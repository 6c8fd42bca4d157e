"""Loads chunks, several at once, and says when each is committed.

Workers take chunks in the order in which they came, each with a connection of its own. A stream's chunks commit in
order; its end waits for all of them.
"""

from __future__ import annotations

import queue
import signal
import threading
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import psycopg

from singer_postgres.errors import SingerPostgresError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from singer_postgres.target.connections import Warehouse
    from singer_postgres.target.streams import StreamLoad
    from singer_postgres.target.written import Written
    from singer_postgres.wire import Chunk


@dataclass
class _Turns:
    """Whose turn it is to commit, of one stream's chunks."""

    given: int = 0
    done: int = 0
    changed: threading.Condition = field(default_factory=threading.Condition)


@dataclass(frozen=True)
class _Job:
    number: int
    load: StreamLoad
    chunk: Chunk
    path: Path | None
    turns: _Turns
    turn: int


class Stopped(Exception):  # noqa: N818 - not an error: another worker's is told
    """The run is over."""


class Loading:
    """The chunks of one run being loaded."""

    def __init__(
        self, warehouse: Warehouse, *, parallel: int, committed: Callable[[int, StreamLoad, Chunk, Written], None]
    ) -> None:
        """Begin.

        Args:
            parallel: chunks loaded at once.
            committed: called with each chunk that is committed, from any thread.
        """
        self._warehouse = warehouse
        self._committed = committed
        self._parallel = parallel
        self._jobs: queue.Queue[_Job | None] = queue.Queue()
        self._turns: dict[str, _Turns] = {}
        self._threads: list[threading.Thread] = []
        self._opening = threading.Lock()
        self._stopped = threading.Event()
        self._error: Exception | None = None

    def submit(self, number: int, load: StreamLoad, chunk: Chunk, path: Path | None) -> None:
        """Have a chunk loaded.

        Raises:
            SingerPostgresError, psycopg.Error: one before it could not be loaded.
        """
        self.raise_error()
        turns = self._turns.setdefault(load.stream, _Turns())
        self._jobs.put(_Job(number, load, chunk, path, turns, turns.given))
        turns.given += 1
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
            thread.join()
        self._threads.clear()
        self.raise_error()

    def raise_error(self) -> None:
        """Raise what a worker met, if one did."""
        if self._error is not None:
            raise self._error

    def _work(self) -> None:
        connection: psycopg.Connection[Any] | None = None
        try:
            while (job := self._next()) is not None:
                if connection is None:
                    connection = self._warehouse.connect()
                self._load(connection, job)
        except Stopped:
            return
        except Exception as error:  # noqa: BLE001 - whatever it is, the main thread is to know
            self._fail(_named(error, job.load if job else None))
        finally:
            if connection is not None:
                with suppress(psycopg.Error):
                    connection.close()

    def _next(self) -> _Job | None:
        while not self._stopped.is_set():
            with suppress(queue.Empty):
                return self._jobs.get(timeout=0.5)
        return None

    def _load(self, connection: psycopg.Connection[Any], job: _Job) -> None:
        def my_turn() -> None:
            with job.turns.changed:
                job.turns.changed.wait_for(lambda: job.turns.done == job.turn or self._stopped.is_set())
            if self._stopped.is_set():
                raise Stopped

        if job.turn == 0:
            # one at a time: two that make the same schema at once would trip over each other
            with self._opening:
                job.load.open(connection, job.chunk)
            job.load.opened.set()
        else:
            while not job.load.opened.wait(timeout=0.5):
                if self._stopped.is_set():
                    raise Stopped
        if job.chunk.last:
            my_turn()
            written = job.load.finish(connection, job.chunk)
        else:
            written = job.load.load(connection, job.chunk, job.path, my_turn)
        # room for the next one: the rows are safe
        if job.path is not None:
            job.path.unlink(missing_ok=True)
        with job.turns.changed:
            job.turns.done += 1
            job.turns.changed.notify_all()
        self._committed(job.number, job.load, job.chunk, written)

    def _fail(self, error: Exception) -> None:
        if self._error is None:
            self._error = error
        self._stopped.set()
        for turns in list(self._turns.values()):
            with turns.changed:
                turns.changed.notify_all()
        # the main thread may be waiting for input that will not come before there is room for it
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGUSR1)


def _named(error: Exception, load: StreamLoad | None) -> Exception:
    """Return the error with the stream's name in it, if it is one of the database's."""
    if isinstance(error, psycopg.Error) and load is not None:
        named = SingerPostgresError(f"Loading {load.stream} into {load.schema}.{load.table.name} failed: {error}")
        named.__cause__ = error
        return named
    return error
