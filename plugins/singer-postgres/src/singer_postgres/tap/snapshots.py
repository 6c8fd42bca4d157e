"""One stream under one snapshot: what it is made of at that instant, and the snapshot for others to read under."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import psycopg2
from psycopg2 import errors, sql

from singer_postgres.errors import SingerPostgresError
from singer_postgres.tap import horizon, relations

if TYPE_CHECKING:
    from psycopg2.extensions import connection as Connection  # noqa: N812
    from psycopg2.extensions import cursor as Cursor  # noqa: N812

    from singer_postgres.tap.relations import Relation

# an instant as ISO 8601 in UTC
_ISO = """to_char({} at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"')"""
# how far the server's own WAL reaches, or what it has replayed of its primary's
POSITION = """
    select (case when pg_is_in_recovery() then pg_last_wal_replay_lsn() else pg_current_wal_insert_lsn() end)::text
"""
BEGIN = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY"


class Snapshot:
    """An open transaction that exports its snapshot of one relation.

    The relation is locked against changes of its shape, TRUNCATE and rewrites (ACCESS SHARE) before the snapshot is
    taken: an older snapshot sees a truncated table as empty.
    """

    def __init__(self, connection: Connection, schema: str, name: str) -> None:
        """Take the snapshot.

        Raises:
            SingerPostgresError: there is no such relation, or it can't be read.
        """
        self._connection = connection
        self._users = 0
        self.taken = time.monotonic()
        self.horizon = horizon.read(connection)
        with connection.cursor() as cursor:
            cursor.execute(
                "select relkind::text from pg_catalog.pg_class where oid = to_regclass(%s)",
                [sql.Identifier(schema, name).as_string(connection)],
            )
            kind = cursor.fetchone()
            if kind is None:
                msg = f"The source has no {schema}.{name}; correct `select`, or run discovery again."
                raise SingerPostgresError(msg)
            cursor.execute(BEGIN)
            if kind[0] in "rp":
                cursor.execute(sql.SQL("LOCK TABLE {} IN ACCESS SHARE MODE").format(sql.Identifier(schema, name)))
            # the first statement that needs the snapshot takes it, so its own start is the snapshot's instant
            cursor.execute(f"select pg_export_snapshot(), {_ISO.format('statement_timestamp()')}")
            row = cursor.fetchone()
            cursor.execute(POSITION)
            (self.position,) = cursor.fetchone()
        assert row
        self.id, self.at = map(str, row)
        self.relation = self._relation(schema, name)

    def _relation(self, schema: str, name: str) -> Relation:
        found = relations.named(self._connection, schema, name)
        if found is None:
            msg = f"The source has no {schema}.{name} any more; run discovery again."
            raise SingerPostgresError(msg)
        if found.hides_rows:
            msg = (
                f"Row-level security hides rows of {found} from this role: reading it would miss them. "
                "Let the role see all: ALTER ROLE … BYPASSRLS;"
            )
            raise SingerPostgresError(msg)
        return found

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
            msg = f"the connection is lost that held the snapshot ({' '.join(str(error).split())})"
            raise psycopg2.OperationalError(msg) from error

    def use(self) -> None:
        """Note that someone is about to begin a transaction under it."""
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
        with self._connection.cursor() as cursor:
            cursor.execute("ROLLBACK")
        return self._connection
