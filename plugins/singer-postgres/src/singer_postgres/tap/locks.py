"""Locks on the source's tables: held briefly, never waited for, and released when another session waits for them.

A session that alters, truncates or rewrites a table (ACCESS EXCLUSIVE) waits for all readers, and all later sessions
wait behind it. If one of our readers kept its lock while another waited in that queue, the application would stop, and
PostgreSQL would detect no deadlock.
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

from singer_postgres.core import poolers, prepared_transactions
from singer_postgres.core.errors import LockBusyError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from psycopg2.extensions import connection as Connection  # noqa: N812
    from psycopg2.extensions import cursor as Cursor  # noqa: N812

    from singer_postgres.tap.connections import SourceConnector

_LOGGER = logging.getLogger("tap-postgres")
# The longest wait for a lock. Sessions behind us in the queue wait anyway, for the session in front of us.
_PATIENCE_MS = 100
# how often to look for waiting sessions, and how long a range may continue while a session waits for it
_LOOK_EVERY_S = 0.25
GRACE_S = 1.0
_CONNECT_AGAIN_S = 10.0
# the pauses before the next attempt to take a lock: 0.1, 0.2, 0.4 s, and so on
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.1, 1.0
_LOG_EVERY_S = 60.0

_WHO = "concat('pid ', a.pid, ' (', a.usename, coalesce(', ' || nullif(a.application_name, ''), ''), ')')"
# who has a lock that keeps readers out of these relations or their indexes, or else the session that waits for one
_HOLDERS = f"""
    select who from (
        select l.granted, a.xact_start, coalesce(
            {prepared_transactions.NAME_OF_HOLDER},
            case when a.pid is not null then {_WHO} || coalesce(': ' || nullif(left(a.query, 80), ''), '') end
        ) as who
        from pg_catalog.pg_locks l left join pg_catalog.pg_stat_activity a using (pid)
        where l.locktype = 'relation' and l.mode = 'AccessExclusiveLock'
            and l.database = (select oid from pg_catalog.pg_database where datname = current_database())
            and (l.relation = any(%(oids)s::bigint[]::oid[]) or l.relation in (
                select indexrelid from pg_catalog.pg_index where indrelid = any(%(oids)s::bigint[]::oid[])
            ))
    ) named
    where who is not null order by granted desc, xact_start limit 1
"""  # noqa: S608 - of constants
# sessions that wait to alter a table which one of our sessions reads
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
    """A relation, or one below it, is locked, or another session waits to lock it. Try again later."""


class ReadInterruptedError(Exception):
    """A range was interrupted because another session waited for its table."""


def lock(cursor: Cursor, relation: sql.Composable, *, lock_timeout_s: float) -> None:
    """Lock a relation, and everything a query on it reads, as a query does (ACCESS SHARE), until the transaction ends.

    This selects no row instead of using LOCK TABLE. That needs a right on the whole table, where a right on some
    columns is enough, and does not work for views.

    Args:
        lock_timeout_s: the session's timeout for all other statements.

    Raises:
        LockedError: the lock is not available at once.
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
    """Keep the statements of a connection in autocommit from waiting for locks.

    Args:
        relations: oids of the relations that they read.
        lock_timeout_s: the session's timeout for all other statements.

    Raises:
        LockedError: a statement would have to wait.
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
    """Return the session or prepared transaction that keeps readers out of relations, for a message."""
    with connection.cursor() as cursor:
        cursor.execute(_HOLDERS, {"oids": list(oids)})
        row = cursor.fetchone()
    return str(row[0]) if row else "a session that has released it since"


@dataclass
class Pause:
    """The pause before the next attempt to take a lock."""

    until: float = 0.0
    since: float | None = None
    _logged_at: float = 0.0
    _count: int = 0

    @property
    def left_s(self) -> float:
        """Seconds until the next attempt."""
        return max(0.0, self.until - time.monotonic())

    @property
    def length_s(self) -> float:
        """Seconds since the first attempt."""
        return 0.0 if self.since is None else time.monotonic() - self.since

    def locked(self, stream: str, by: str, *, limit_s: float) -> None:
        """Pause because a stream's table is locked.

        Args:
            limit_s: how long the table may stay locked; 0 for no limit.

        Raises:
            SingerPostgresError: the table was locked for longer.
        """
        self.longer()
        if limit_s and self.length_s > limit_s:
            msg = (
                f"Reading {stream} failed: its table was locked for longer than lock_timeout = {limit_s:g} s, by {by}; "
                "run this again when the table is free."
            )
            raise LockBusyError(msg)
        if time.monotonic() - self._logged_at > _LOG_EVERY_S:
            self._logged_at = time.monotonic()
            _LOGGER.warning("Waiting for a lock: stream=%s, holder=%s", stream, by)

    def longer(self) -> None:
        """Pause, longer each time."""
        now = time.monotonic()
        if self.since is None:
            self.since = self._logged_at = now
        self.until = now + min(_LONGEST_PAUSE_S, _FIRST_PAUSE_S * 2**self._count)
        self._count += 1

    def over(self) -> None:
        """Reset the pause: the lock was available."""
        self.until, self.since, self._count = 0.0, None, 0


@dataclass(eq=False)
class Reader:
    """A transaction of ours that reads a table.

    Attributes:
        pid: its server process.
        gave_way: set when its transaction was ended because another session waited too long for it.
        waiter: that other session.
    """

    connection: Connection
    pid: int
    gave_way: threading.Event = field(default_factory=threading.Event)
    waiter: str = ""
    is_over: bool = False
    lock: threading.Lock = field(default_factory=threading.Lock)
    """Held while the session is ended, and while the end of its range is noted."""
    _waited_for: dict[str, float] = field(default_factory=dict)

    def waited_for(self, waiting: set[str]) -> str | None:
        """Record which sessions wait now; return one that has waited long enough."""
        now = time.monotonic()
        self._waited_for = {who: self._waited_for.get(who, now) for who in waiting}
        return next((who for who, since in self._waited_for.items() if now - since >= GRACE_S), None)


class Watch:
    """Looks for sessions that wait for ranges being read, and interrupts a range that a session waits too long for.

    A range that stalls because the target is slow, or takes minutes to read, would otherwise stop the application for
    as long.
    """

    def __init__(self, source: SourceConnector) -> None:
        self._source = source
        self._readers: dict[int, Reader] = {}
        self._alone = threading.Lock()
        self._some = threading.Event()
        self._thread: threading.Thread | None = None

    @contextmanager
    def over(self, connection: Connection, pid: int | None = None) -> Iterator[Reader]:
        """Watch over what a connection reads.

        Raises:
            ReadInterruptedError: reading was interrupted because another session waited.
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
                raise ReadInterruptedError(reader.waiter) from error
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
            # most ranges end before this, and need no check
            time.sleep(_LOOK_EVERY_S)
            if not self._readers:
                continue
            try:
                if connection is None or connection.closed:
                    connection = self._source.connect_once()
                self._look(connection)
            except Exception as error:  # noqa: BLE001 - reading continues, and so does this
                _LOGGER.debug("Cannot look for waiting sessions: %s", error)
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
            # with the reader's lock, because the session must not begin another range meanwhile
            with reader.lock:
                if who is not None and not reader.is_over:
                    _end(connection, reader, who)


def _end(connection: Connection, reader: Reader, who: str) -> None:
    """Cancel a reader's statement; the next time, end its session: one that waits for its client ignores a cancel."""
    how = "terminate" if reader.gave_way.is_set() else "cancel"
    reader.waiter = who
    reader.gave_way.set()
    try:
        with connection.cursor() as cursor:
            # a role may end its own sessions
            cursor.execute(f"select pg_catalog.pg_{how}_backend(%s)", [reader.pid])
    except errors.InsufficientPrivilege:
        reader.connection.cancel()
