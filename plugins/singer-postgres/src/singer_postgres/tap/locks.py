"""Locks on the source's tables: taken for a moment, never waited for, given up when somebody waits for them.

Whoever alters, truncates or rewrites a table (ACCESS EXCLUSIVE) waits for all who read it, and all who come later wait
behind that. So a reader of ours that keeps its lock while another of ours stands in the queue would stop the
application, and PostgreSQL sees no deadlock in that.
"""

from __future__ import annotations

import logging
import threading
import time
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import psycopg2
from psycopg2 import errors, sql

from singer_postgres.core import poolers
from singer_postgres.core.errors import LockBusyError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from psycopg2.extensions import connection as Connection  # noqa: N812
    from psycopg2.extensions import cursor as Cursor  # noqa: N812

    from singer_postgres.tap.connections import SourceConnector

_LOGGER = logging.getLogger("tap-postgres")
# how long a lock is asked for at once. Nobody is kept waiting by this that the one in front does not keep waiting.
_PATIENCE_MS = 100
# how often those are looked for that wait for us, and how long a range may go on that somebody waits for
_LOOK_EVERY_S = 0.25
GRACE_S = 1.0
_CONNECT_AGAIN_S = 10.0
# how long a lock that was not to be had is left alone: 0.1, 0.2, 0.4 s, and so on
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.1, 1.0
_TELL_EVERY_S = 60.0

_WHO = "concat('pid ', a.pid, ' (', a.usename, coalesce(', ' || nullif(a.application_name, ''), ''), ')')"
# who has a lock that keeps readers out, or waits for one, of these relations or their indexes
_HOLDERS = f"""
    select {_WHO} || coalesce(': ' || nullif(left(a.query, 80), ''), '')
    from pg_catalog.pg_locks l join pg_catalog.pg_stat_activity a using (pid)
    where l.locktype = 'relation' and l.mode = 'AccessExclusiveLock'
        and l.database = (select oid from pg_catalog.pg_database where datname = current_database())
        and (l.relation = any(%(oids)s::bigint[]::oid[]) or l.relation in (
            select indexrelid from pg_catalog.pg_index where indrelid = any(%(oids)s::bigint[]::oid[])
        ))
    order by l.granted desc, a.xact_start limit 1
"""  # noqa: S608 - of constants
# who waits to alter what one of ours reads
_WAITING = f"""
    select ours.pid, {_WHO} || coalesce(': ' || nullif(left(a.query, 80), ''), '')
    from (
        select distinct pid from pg_catalog.pg_locks
        where not granted and mode = 'AccessExclusiveLock' and pid <> all(%(ours)s::int[])
    ) waiting
    join pg_catalog.pg_stat_activity a on a.pid = waiting.pid
    cross join lateral unnest(pg_catalog.pg_blocking_pids(waiting.pid)) ours(pid)
    where ours.pid = any(%(ours)s::int[])
"""  # noqa: S608 - of constants


class LockedError(Exception):
    """A relation, or something that reading it reads, is locked, or somebody waits for it: try again later."""


class GaveWayError(Exception):
    """A range was left unfinished, as somebody waited for it."""


def lock(cursor: Cursor, relation: sql.Composable, *, lock_timeout_s: float) -> None:
    """Lock a relation, and all that a query on it reads, as reading does (ACCESS SHARE), until the transaction ends.

    Reading no row, and not LOCK TABLE, which asks for a right on the whole table where one on some columns is enough,
    and does not know views.

    Args:
        lock_timeout_s: what the session has for all else.

    Raises:
        LockedError: that would take waiting.
    """
    statement = sql.SQL("SET LOCAL lock_timeout = {}; SELECT FROM {} LIMIT 0; SET LOCAL lock_timeout = {}").format(
        sql.Literal(_PATIENCE_MS), relation, sql.Literal(round(lock_timeout_s * 1000))
    )
    try:
        cursor.execute(statement)
    except errors.LockNotAvailable as error:
        raise LockedError(str(error).strip()) from error


@contextmanager
def at_once(connection: Connection, relations: Sequence[int], *, lock_timeout_s: float) -> Iterator[None]:
    """Have statements of a connection in autocommit wait for no lock.

    Args:
        relations: oids of what they read.
        lock_timeout_s: what the session has for all else.

    Raises:
        LockedError: one would have to wait.
    """
    with connection.cursor() as cursor:
        cursor.execute(f"SET lock_timeout = {_PATIENCE_MS}")
        try:
            yield
        except errors.LockNotAvailable as error:
            raise LockedError(holder(connection, relations)) from error
        finally:
            if not connection.closed:
                cursor.execute(f"SET lock_timeout = {round(lock_timeout_s * 1000)}")


def holder(connection: Connection, oids: Sequence[int]) -> str:
    """Return who keeps readers out of relations."""
    with connection.cursor() as cursor:
        cursor.execute(_HOLDERS, {"oids": list(oids)})
        row = cursor.fetchone()
    return str(row[0]) if row else "a session that has gone on since"


@dataclass
class Pause:
    """How long to leave a lock alone that was not to be had."""

    until: float = 0.0
    since: float | None = None
    _told: float = 0.0
    _count: int = 0

    @property
    def left_s(self) -> float:
        """Seconds until it may be asked for again."""
        return max(0.0, self.until - time.monotonic())

    @property
    def length_s(self) -> float:
        """Seconds since it was first asked for."""
        return 0.0 if self.since is None else time.monotonic() - self.since

    def locked(self, stream: str, by: str, *, limit_s: float) -> None:
        """Leave a stream's table alone that is locked.

        Args:
            limit_s: how long that may take; 0 for ever.

        Raises:
            SingerPostgresError: it took longer.
        """
        self.longer()
        if limit_s and self.length_s > limit_s:
            msg = (
                f"Reading {stream} failed: its table was locked for longer than lock_timeout = {limit_s:g} s, by {by}; "
                "run this again when that is over."
            )
            raise LockBusyError(msg)
        if time.monotonic() - self._told > _TELL_EVERY_S:
            self._told = time.monotonic()
            _LOGGER.warning("Reading %s waits for a table that is locked by %s", stream, by)

    def longer(self) -> None:
        """Leave it alone for a while, longer each time."""
        now = time.monotonic()
        if self.since is None:
            self.since = self._told = now
        self.until = now + min(_LONGEST_PAUSE_S, _FIRST_PAUSE_S * 2**self._count)
        self._count += 1

    def over(self) -> None:
        """Begin anew: it was to be had."""
        self.until, self.since, self._count = 0.0, None, 0


@dataclass(eq=False)
class Reader:
    """A transaction of ours that reads a table.

    Attributes:
        pid: of the server's process.
        gave_way: set when its transaction was ended, as somebody waited for it for too long.
        waiter: that somebody.
    """

    connection: Connection
    pid: int
    gave_way: threading.Event = field(default_factory=threading.Event)
    waiter: str = ""
    is_over: bool = False
    lock: threading.Lock = field(default_factory=threading.Lock)
    """Held while the session is ended, and to note that it is at this range no longer."""
    _waited_for: dict[str, float] = field(default_factory=dict)

    def waited_for(self, waiting: set[str]) -> str | None:
        """Take note of who waits now; return one who has waited for long enough."""
        now = time.monotonic()
        self._waited_for = {who: self._waited_for.get(who, now) for who in waiting}
        return next((who for who, since in self._waited_for.items() if now - since >= GRACE_S), None)


class Watch:
    """Looks, while ranges are read, for those that wait for them, and ends a range that they wait for too long.

    What stands still because the target is slow, or reads for minutes, would otherwise stop the application as long.
    """

    def __init__(self, source: SourceConnector) -> None:
        self._source = source
        self._readers: dict[int, Reader] = {}
        self._alone = threading.Lock()
        self._some = threading.Event()
        self._thread: threading.Thread | None = None

    @contextmanager
    def over(self, connection: Connection, pid: int | None = None) -> Iterator[Reader]:
        """Watch over what is read on a connection.

        Raises:
            GaveWayError: it was ended, as somebody waited for it.
        """
        reader = Reader(connection, poolers.server_pid(connection) if pid is None else pid)
        with self._alone:
            self._readers[reader.pid] = reader
            if self._thread is None:
                self._thread = threading.Thread(target=self._look_on, name="lock-watch", daemon=True)
                self._thread.start()
        self._some.set()
        try:
            yield reader
        except Exception as error:
            if reader.gave_way.is_set():
                raise GaveWayError(reader.waiter) from error
            raise
        finally:
            with reader.lock:
                reader.is_over = True
            with self._alone:
                self._readers.pop(reader.pid, None)
                if not self._readers:
                    self._some.clear()

    def _look_on(self) -> None:
        connection: Connection | None = None
        while True:
            self._some.wait()
            # most ranges are read by then, and need no look
            time.sleep(_LOOK_EVERY_S)
            if not self._readers:
                continue
            try:
                if connection is None or connection.closed:
                    connection = self._source.connect_once()
                self._look(connection)
            except Exception as error:  # noqa: BLE001 - reading goes on, and so does this
                _LOGGER.debug("Nobody can be seen who waits for a table: %s", error)
                if connection is not None:
                    with suppress(psycopg2.Error):
                        connection.close()
                time.sleep(_CONNECT_AGAIN_S)

    def _look(self, connection: Connection) -> None:
        ours = list(self._readers)
        with connection.cursor() as cursor:
            cursor.execute(_WAITING, {"ours": ours})
            waiting: dict[int, set[str]] = {}
            for pid, who in cursor.fetchall():
                waiting.setdefault(pid, set()).add(who)
        with self._alone:
            readers = list(self._readers.values())
        for reader in readers:
            who = reader.waited_for(waiting.get(reader.pid, set()))
            # under the reader's lock: the session must not be at another range by then
            with reader.lock:
                if who is not None and not reader.is_over:
                    _end(connection, reader, who)


def _end(connection: Connection, reader: Reader, who: str) -> None:
    """End what a reader is at; its session the next time, as one that waits for its client doesn't hear the first."""
    how = "terminate" if reader.gave_way.is_set() else "cancel"
    reader.waiter = who
    reader.gave_way.set()
    try:
        with connection.cursor() as cursor:
            # a session of its own role, which that may end
            cursor.execute(f"select pg_catalog.pg_{how}_backend(%s)", [reader.pid])
    except errors.InsufficientPrivilege:
        reader.connection.cancel()
