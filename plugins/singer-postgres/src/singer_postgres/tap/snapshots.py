"""The snapshot of one stream, which other connections read under, and the relation's layout at that instant."""

from __future__ import annotations

import threading
import time
from contextlib import contextmanager
from dataclasses import replace
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
    """A relation changed while it was read. The message says how."""


# how often a relation may change while its snapshot is taken
_ATTEMPTS = 10


class Snapshot:
    """An open transaction that exports its snapshot of one relation, and holds no lock on it.

    Under a snapshot older than a TRUNCATE, the table seems empty, and a rewritten table has its rows elsewhere. So each
    reader locks its tables (ACCESS SHARE) while it reads, and compares the layout with that of the snapshot. This
    transaction is READ COMMITTED, so that the comparison sees what was committed since.
    """

    def __init__(self, connection: Connection, schema: str, name: str, *, lock_timeout_s: float) -> None:
        """Take the snapshot.

        Raises:
            SingerPostgresError: the relation doesn't exist, or can't be read.
            LockedError: it is locked.
        """
        self._connection = connection
        self._users = 0
        self.sees_before = ""
        """A transaction id: the snapshot sees all older transactions."""
        self.was_used = False
        self._lock_timeout_s = lock_timeout_s
        # a savepoint is several statements
        self._alone = threading.RLock()
        self._name = sql.Identifier(schema, name)
        self.taken = time.monotonic()
        self.open_transactions = open_transactions.read(connection)
        for _ in range(_ATTEMPTS):
            if self._take(schema, name):
                return
        msg = f"{schema}.{name} keeps being altered or rewritten; run this again when that has ended."
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
                    f"Row-level security hides rows of {schema}.{name} from this role, so they would be missed. "
                    "Let the role see all: ALTER ROLE … BYPASSRLS;"
                )
                raise RowsHiddenError(msg)
            # a statement's own start is the instant of its snapshot
            cursor.execute(
                f"select pg_export_snapshot(), {_ISO.format('statement_timestamp()')}, pg_backend_pid(), ({POSITION}), "
                "pg_catalog.pg_snapshot_xmin(pg_catalog.pg_current_snapshot())::text"
            )
            row = cursor.fetchone()
            assert row
            self.id, self.at, self.pid, self.lsn = str(row[0]), str(row[1]), int(row[2]), str(row[3])
            self.sees_before = str(row[4])
            self.layout = before
            with self._locked():
                found = relations.find(self._connection, schema, name)
                after = layout.by_name(self._connection, schema, name)
            if found is not None and before == after:
                # what was read of it is of a later moment
                self.relation = replace(found, seen=self.sees_before)
                return True
            cursor.execute("ROLLBACK")
            return False

    @contextmanager
    def _savepoint(self) -> Iterator[None]:
        """Roll back to where the block began, which also releases its locks."""
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
        """Lock the unchanged relation, for queries on the snapshot's own connection.

        Raises:
            LockedError: the relation is locked.
            ChangedError: it changed after the snapshot was taken.
        """
        with self._locked():
            self.require_same(self.layout.parts, ())
            yield

    def locked_by(self, parts: Iterable[int]) -> str:
        """Return the session that keeps readers out of some parts of the relation, for a message."""
        with self._savepoint():
            return locks.holder(self._connection, list(parts))

    def require_same(self, parts: Iterable[int], columns: Iterable[str]) -> None:
        """Raise if the relation changed, for a reader that has locked some parts of it.

        Raises:
            ChangedError: it changed after the snapshot was taken.
        """
        parts = list(parts)
        with self._savepoint():
            now = layout.by_oid(self._connection, self.layout.oid, parts)
        if change := self.layout.change(now, parts=parts, columns=columns):
            raise ChangedError(change)

    @property
    def connection(self) -> Connection:
        """The connection that holds the snapshot, for short queries."""
        return self._connection

    @property
    def age_s(self) -> float:
        """Seconds since the snapshot was taken."""
        return time.monotonic() - self.taken

    def enter(self, cursor: Cursor) -> None:
        """Begin a transaction under the snapshot on another connection.

        Raises:
            psycopg2.OperationalError: the snapshot is gone, because its own connection broke.
        """
        try:
            cursor.execute(f"{BEGIN}; SET TRANSACTION SNAPSHOT '{self.id}'")
        except (errors.InvalidParameterValue, errors.UndefinedObject, errors.ObjectNotInPrerequisiteState) as error:
            # driver_errors knows these words
            msg = f"the snapshot's connection is lost ({one_line(error)})"
            raise psycopg2.OperationalError(msg) from error

    def use(self) -> None:
        """Count a lease whose transaction is yet to begin under the snapshot."""
        self.was_used = True
        self._users += 1

    def used(self) -> None:
        """Count a lease off: its transaction has begun and no longer needs the snapshot's transaction."""
        self._users -= 1

    @property
    def needed(self) -> bool:
        """Whether a transaction is yet to begin under the snapshot."""
        return self._users > 0

    def release(self) -> Connection:
        """End the transaction; return its connection for reuse."""
        with self._alone, self._connection.cursor() as cursor:
            cursor.execute("ROLLBACK")
        return self._connection
