"""One stream under one snapshot: what it is made of at that instant, and the snapshot for others to read under."""

from __future__ import annotations

import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

import psycopg2
from psycopg2 import errors, sql

from singer_postgres.core.errors import RowsHiddenError, TableChangedError, TableMissingError, one_line
from singer_postgres.core.source import open_transactions, relations
from singer_postgres.tap import layout, locks
from singer_postgres.tap.locks import LockedError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from psycopg2.extensions import connection as Connection  # noqa: N812
    from psycopg2.extensions import cursor as Cursor  # noqa: N812


# an instant as ISO 8601 in UTC
_ISO = """to_char({} at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"')"""
# how far the server's own WAL reaches, or what it has replayed of its primary's
POSITION = """
    select (case when pg_is_in_recovery() then pg_last_wal_replay_lsn() else pg_current_wal_insert_lsn() end)::text
"""
BEGIN = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY"
BEGIN_HOLDER = "BEGIN ISOLATION LEVEL READ COMMITTED READ ONLY"


class ChangedError(Exception):
    """A relation was changed in the middle of being read; says what happened to it."""


# how often a relation may be changed while its snapshot is taken
_ATTEMPTS = 10


class Snapshot:
    """An open transaction that exports its snapshot of one relation, and holds no lock of it.

    An older snapshot sees a table as empty that was truncated, and a rewritten one has its rows elsewhere. So whoever
    reads under it locks what it reads (ACCESS SHARE) for that long, and then looks whether the layout is what it was
    when the snapshot was taken. Read committed: looking sees what was committed since.
    """

    def __init__(self, connection: Connection, schema: str, name: str, *, lock_timeout_s: float) -> None:
        """Take the snapshot.

        Raises:
            SingerPostgresError: there is no such relation, or it can't be read.
            LockedError: it is locked.
        """
        self._connection = connection
        self._users = 0
        self.was_used = False
        self._lock_timeout_s = lock_timeout_s
        # a savepoint is several statements
        self._alone = threading.RLock()
        self._name = sql.Identifier(schema, name)
        self.taken = time.monotonic()
        self.horizon = open_transactions.read(connection)
        for _ in range(_ATTEMPTS):
            if self._take(schema, name):
                return
        msg = f"{schema}.{name} is altered or rewritten all the time; run this again when that is over."
        raise TableChangedError(msg)

    def _take(self, schema: str, name: str) -> bool:
        """Take the snapshot; return whether the relation was the same before and after."""
        with self._connection.cursor() as cursor:
            cursor.execute(BEGIN_HOLDER)
            with self._savepoint():
                before = layout.by_name(self._connection, schema, name)
            if before is None:
                msg = f"The source has no {schema}.{name}; correct `select`, or run discovery again."
                raise TableMissingError(msg)
            if before.hides_rows:
                msg = (
                    f"Row-level security hides rows of {schema}.{name} from this role: reading it would miss them. "
                    "Let the role see all: ALTER ROLE … BYPASSRLS;"
                )
                raise RowsHiddenError(msg)
            # a statement's own start is the instant of its snapshot
            cursor.execute(
                f"select pg_export_snapshot(), {_ISO.format('statement_timestamp()')}, pg_backend_pid(), ({POSITION})"
            )
            row = cursor.fetchone()
            assert row
            self.id, self.at, self.pid, self.lsn = str(row[0]), str(row[1]), int(row[2]), str(row[3])
            self.layout = before
            with self._locked():
                found = relations.find(self._connection, schema, name)
                after = layout.by_name(self._connection, schema, name)
            if found is not None and before == after:
                self.relation = found
                return True
            cursor.execute("ROLLBACK")
            return False

    @contextmanager
    def _savepoint(self) -> Iterator[None]:
        """Undo what is done, and give back what is locked."""
        with self._alone, self._connection.cursor() as cursor:
            cursor.execute("SAVEPOINT moment")
            try:
                yield
            finally:
                if not self._connection.closed:
                    cursor.execute("ROLLBACK TO SAVEPOINT moment; RELEASE SAVEPOINT moment")

    @contextmanager
    def _locked(self) -> Iterator[None]:
        with self._savepoint(), self._connection.cursor() as cursor:
            try:
                locks.lock(cursor, self._name, lock_timeout_s=self._lock_timeout_s)
            except LockedError as error:
                cursor.execute("ROLLBACK TO SAVEPOINT moment")
                raise LockedError(locks.holder(self._connection, list(self.layout.parts))) from error
            yield

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Have the relation as it was for what is done on the holder's own connection.

        Raises:
            LockedError: it is locked.
            ChangedError: it was changed since the snapshot was taken.
        """
        with self._locked():
            self.require_same(self.layout.parts, ())
            yield

    def locked_by(self, parts: Iterable[int]) -> str:
        """Return who keeps readers out of some parts of the relation."""
        with self._savepoint():
            return locks.holder(self._connection, list(parts))

    def require_same(self, parts: Iterable[int], columns: Iterable[str]) -> None:
        """Look whether the relation is what it was, for a reader that has locked some parts of it.

        Raises:
            ChangedError: it isn't.
        """
        parts = list(parts)
        with self._savepoint():
            now = layout.by_oid(self._connection, self.layout.oid, parts)
        if change := self.layout.change(now, parts=parts, columns=columns):
            raise ChangedError(change)

    @property
    def connection(self) -> Connection:
        """The connection that holds the snapshot; for queries that are short."""
        return self._connection

    @property
    def age_s(self) -> float:
        """Seconds since it was taken."""
        return time.monotonic() - self.taken

    def enter(self, cursor: Cursor) -> None:
        """Begin a transaction under it on another connection.

        Raises:
            psycopg2.OperationalError: it is no more, as the connection that held it broke.
        """
        try:
            cursor.execute(f"{BEGIN}; SET TRANSACTION SNAPSHOT '{self.id}'")
        except (errors.InvalidParameterValue, errors.UndefinedObject, errors.ObjectNotInPrerequisiteState) as error:
            msg = f"the connection is lost that held the snapshot ({one_line(error)})"
            raise psycopg2.OperationalError(msg) from error

    def use(self) -> None:
        """Note that someone is about to begin a transaction under it."""
        self.was_used = True
        self._users += 1

    def used(self) -> None:
        """Note that this transaction has begun: it no longer needs this one."""
        self._users -= 1

    @property
    def needed(self) -> bool:
        """Whether someone is yet to begin under it."""
        return self._users > 0

    def release(self) -> Connection:
        """End the transaction; return its connection for further use."""
        with self._alone, self._connection.cursor() as cursor:
            cursor.execute("ROLLBACK")
        return self._connection
