"""The contents of a database in one snapshot: its tables with row counts and checksums, and its own properties."""

from __future__ import annotations

import time
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import psycopg
from psycopg import errors, sql

from singer_postgres.core import session
from tidemark.backup import settings
from tidemark.backup.manifest import Counted, Database
from tidemark.errors import BackupError, BusyError, TidemarkError, UsageError
from tidemark.project import connections

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tidemark.project.database_settings import DatabaseSettings

    Connection = psycopg.Connection[Any]

_LOCK_TIMEOUT_S = 60
_LOCK_AT_ONCE_MS = 500
_PAUSE_S = 0.5
_ATTEMPTS = 10
# tables of users, not of an extension, which creates its own rows
_OURS = (
    "nspname !~ '^pg_' and nspname <> 'information_schema' and not exists (select from pg_catalog.pg_depend "
    "where classid = 'pg_catalog.pg_class'::regclass and objid = c.oid and deptype = 'e') "
    # stages of running loads, which drop them
    "and relname !~ '^_tidemark_stage_'"
)
_RELATIONS = f"""
    select nspname, relname from pg_catalog.pg_class c join pg_catalog.pg_namespace n on n.oid = relnamespace
    where relkind = any(%s) and {_OURS} order by 1, 2
"""  # noqa: S608 - fixed text
_POPULATED = f"""
    select nspname, relname from pg_catalog.pg_class c join pg_catalog.pg_namespace n on n.oid = relnamespace
    where relkind = 'm' and relispopulated and {_OURS} order by 1, 2
"""  # noqa: S608 - fixed text
# each cluster has its own transaction ids, and a restore gives new ones
_COLUMNS = """
    select attname from pg_catalog.pg_attribute
    where attrelid = %s::regclass and attnum > 0 and not attisdropped and atttypid <> 'pg_catalog.xid8'::regtype
    order by attnum
"""
_DATABASE = """
    select pg_encoding_to_char(encoding), datlocprovider::text, datcollate, datctype, to_jsonb(d) ->> {locale},
        pg_get_userbyid(datdba), (select system_identifier::text from pg_control_system()),
        (select coalesce(jsonb_agg(jsonb_build_array(coalesce(r.rolname, 'public'), privilege_type, is_grantable)
                order by r.rolname, privilege_type), '[]')
            from aclexplode(datacl) left join pg_roles r on r.oid = grantee),
        (select coalesce(jsonb_agg(jsonb_build_array(r.rolname, setting) order by r.rolname, setting), '[]')
            from pg_db_role_setting s left join pg_roles r on r.oid = setrole cross join unnest(setconfig) setting
            where setdatabase = d.oid)
    from pg_database d where datname = current_database()
"""
# pg_shdepend doesn't list the bootstrap superuser
_ROLES = """
    select distinct rolname from pg_roles r where exists (
            select from pg_shdepend where refclassid = 'pg_authid'::regclass and refobjid = r.oid
                and dbid = (select oid from pg_database where datname = current_database())
        )
        or exists (
            select from pg_class c join pg_namespace n on n.oid = relnamespace
            where r.oid in (relowner, nspowner) and nspname !~ '^pg_' and nspname <> 'information_schema'
        )
    order by 1
"""


@dataclass(frozen=True)
class Contents:
    """A database, read through one session."""

    side: DatabaseSettings
    connection: Connection

    def tables(self) -> list[tuple[str, str]]:
        """Return schema and name of each table that stores rows."""
        return [(schema, name) for schema, name in self.connection.execute(_RELATIONS, [["r"]])]

    def counted(self) -> dict[str, Counted]:
        """Return the row count and checksum of each table."""
        return {self._name(*table): self.count(*table) for table in self.tables()}

    def count(self, schema: str, name: str) -> Counted:
        """Return the row count and checksum of one table, from one scan and a hash of each row's text."""
        table = sql.Identifier(schema, name)
        columns = [column for (column,) in self.connection.execute(_COLUMNS, [table.as_string()])]
        row = self.connection.execute(
            # a sum, because in an exclusive or, equal rows would cancel each other out
            sql.SQL("select count(*), coalesce(sum(hashtextextended(row({})::text, 0)), 0)::text from only {}").format(
                sql.SQL(", ").join(map(sql.Identifier, columns)), table
            )
        ).fetchone()
        assert row
        return Counted(rows=row[0], checksum=row[1])

    def populated(self) -> tuple[str, ...]:
        """Return the materialized views that are populated."""
        return tuple(self._name(*view) for view in self.connection.execute(_POPULATED))

    def cluster(self) -> str:
        """Return the server's identity."""
        row = self.connection.execute("select system_identifier::text from pg_control_system()").fetchone()
        assert row
        return str(row[0])

    @property
    def major(self) -> int:
        """The server's major version."""
        return self.connection.info.server_version // 10_000

    def database(self, *, client: int, compression: str) -> Database:
        """Return everything that a manifest says about the database."""
        # PostgreSQL 17 renamed the column
        locale = sql.Literal("datlocale" if self.major >= 17 else "daticulocale")  # noqa: PLR2004
        row = self.connection.execute(sql.SQL(_DATABASE).format(locale=locale)).fetchone()
        assert row
        encoding, provider, collate, ctype, name, owner, cluster, grants, settings = row
        return Database(
            server=self.major,
            client=client,
            compression=compression,
            cluster=cluster,
            encoding=encoding,
            provider=provider,
            collate=collate,
            ctype=ctype,
            locale=name,
            owner=owner,
            grants=grants,
            settings=settings,
            roles=tuple(role for (role,) in self.connection.execute(_ROLES)),
            tables=self.counted(),
            populated=self.populated(),
        )

    def differences(self, was: Database) -> list[str]:
        """Return in words how the database differs from the manifest `was`."""
        now = self.counted()
        found = []
        for table, expected in was.tables.items():
            there = now.pop(table, None)
            if there is None:
                found.append(f"{table} is missing")
            elif there.rows != expected.rows:
                found.append(f"{table} has {there.rows:,} rows instead of {expected.rows:,}")
            elif there != expected:
                found.append(f"{table} has other values in its {there.rows:,} rows")
        found += [f"{table} was not in the dump" for table in now]
        return found + [f"{view} is not populated" for view in sorted(set(was.populated) - set(self.populated()))]

    def _name(self, schema: str, name: str) -> str:
        row = self.connection.execute("select format('%%I.%%I', %s::text, %s::text)", [schema, name]).fetchone()
        assert row
        return str(row[0])


@contextmanager
def read(side: DatabaseSettings, database: str | None = None) -> Iterator[Contents]:
    """Yield a database, in a session where equal rows have equal text on every server.

    Raises:
        UnreachableError: the database can't be reached.
        UsageError: this role may not read all of it.
    """
    with connections.connect(side, database=database) as connection:
        connection.execute(session.statements(connection.info.server_version, lock_timeout_s=_LOCK_TIMEOUT_S))
        # raise an error instead of leaving out the rows that a policy hides
        connection.execute("set row_security = off")
        try:
            yield Contents(side, connection)
        except errors.InsufficientPrivilege as error:
            raise UsageError(
                f"{side.user!r} may not read all of the {side}: {error.diag.message_primary}. Set "
                f"{settings.variables(side)} to a superuser, or to a role with GRANT pg_read_all_data."
            ) from error


@contextmanager
def frozen(side: DatabaseSettings) -> Iterator[tuple[Contents, str]]:
    """Yield a database as of one instant, and the snapshot's name for pg_dump. No table can be dropped meanwhile.

    The locks come before the snapshot. If a table were truncated between the two, the dump would lack its rows, because
    truncation ignores snapshots.

    Raises:
        BusyError: other sessions keep creating, dropping or locking tables.
    """
    with read(side) as contents:
        connection = contents.connection
        began, moved, locked = time.monotonic(), 0, ""
        # each attempt waits only a moment, because other sessions may wait for the tables that it has locked already
        connection.execute(sql.SQL("set lock_timeout = {}").format(sql.Literal(_LOCK_AT_ONCE_MS)))
        while True:
            try:
                tables = _lockable(connection)
                connection.execute("begin transaction isolation level repeatable read, read only")
                for table in tables:
                    locked = ".".join(table)
                    connection.execute(
                        sql.SQL("lock table only {} in access share mode").format(sql.Identifier(*table))
                    )
                row = connection.execute("select pg_export_snapshot()").fetchone()
                assert row
                if _lockable(connection) == tables:
                    break
                moved += 1
            except errors.UndefinedTable:
                moved += 1
            except errors.LockNotAvailable as error:
                if time.monotonic() - began > _LOCK_TIMEOUT_S:
                    raise BusyError(
                        f"Table {locked} of the {side} is locked for longer than {_LOCK_TIMEOUT_S} s; run this again "
                        "when the session that locks it has ended."
                    ) from error
                time.sleep(_PAUSE_S)
            connection.execute("rollback")
            if moved == _ATTEMPTS:
                raise BusyError(f"Other sessions keep creating or dropping tables of the {side}; run this again later.")
        yield contents, row[0]


def _lockable(connection: Connection) -> list[tuple[str, str]]:
    return connection.execute(_RELATIONS, [["r", "p"]]).fetchall()


def ended(error: psycopg.Error, doing: str) -> TidemarkError:
    """Return a failed statement's error as one line."""
    reason = (error.diag.message_primary or str(error)).strip().splitlines()[0]
    hint = f" ({error.diag.message_detail})" if error.diag.message_detail else ""
    return BackupError(f"{doing}: {reason}{hint}.")
