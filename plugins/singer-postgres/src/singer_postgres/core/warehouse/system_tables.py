"""The target's own tables. They are created when first needed, and migrated if they are older than this release.

Each table's comment has its version. Migrations run step by step, so a table of any age can be brought up to date. If a
newer release has migrated a table, it is left alone and the run is refused.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from singer_postgres.core.errors import PermissionDeniedError, ReleaseMismatchError
from singer_postgres.core.sql_compat import errors, sql
from singer_postgres.core.warehouse import brief_locks

if TYPE_CHECKING:
    import psycopg

_COMMENT = "Kept by Tidemark: version {}"
# a role that watches runs, if it exists (`tidemark roles warehouse` creates it)
_MONITOR = "tidemark_monitor"
_VERSION = re.compile(r"^Kept by Tidemark: version (\d+)$")


@dataclass(frozen=True)
class SystemTable:
    """A table that Tidemark keeps.

    Attributes:
        name: its name in the schema that the streams load into.
        steps: the statements that create version 1, then migrate to version 2, and so on; `{}` stands for the table.
    """

    name: str
    steps: tuple[str, ...]

    def in_statement(self, schema: str) -> sql.Composable:
        """Return its name for statements with parameters, which need % doubled."""
        return sql.SQL(sql.Identifier(schema, self.name).as_string().replace("%", "%%"))

    def ensure(self, connection: psycopg.Connection[Any], schema: str) -> None:
        """Create the table, or migrate it to the current version.

        Raises:
            SingerPostgresError: a newer release has migrated it, or this role may not create or alter it.
        """
        if self._version(connection, schema) == len(self.steps):
            return
        try:
            brief_locks.with_brief_locks(
                connection, lambda: self._make(connection, schema), table=sql.Identifier(schema, self.name)
            )
        except errors.InsufficientPrivilege as error:
            if self._version(connection, schema) != len(self.steps):
                msg = (
                    f"{schema}.{self.name} can't be created or altered: {error.diag.message_primary}. Let this role "
                    f"create tables in {schema}, and own the _tidemark_ tables there: GRANT CREATE ON SCHEMA "
                    f'"{schema}" TO …;'
                )
                raise PermissionDeniedError(msg) from error

    def _make(self, connection: psycopg.Connection[Any], schema: str) -> None:
        # one session at a time: the others wait here, and then find the table up to date
        connection.execute("select pg_advisory_xact_lock(hashtextextended(%s, 0))", [f"{schema}.{self.name}"])
        version = self._version(connection, schema)
        if version > len(self.steps):
            msg = (
                f"{schema}.{self.name} has version {version}, and this release knows {len(self.steps)}: a "
                "newer one has loaded into this warehouse. Upgrade this one."
            )
            raise ReleaseMismatchError(msg)
        table = sql.Identifier(schema, self.name)
        for step in self.steps[version:]:
            connection.execute(sql.SQL(step).format(table))
        comment = sql.Literal(_COMMENT.format(len(self.steps)))
        connection.execute(sql.SQL("COMMENT ON TABLE {} IS {}").format(table, comment))
        if connection.execute("select 1 from pg_catalog.pg_roles where rolname = %s", [_MONITOR]).fetchone():
            connection.execute(sql.SQL("GRANT SELECT ON {} TO {}").format(table, sql.Identifier(_MONITOR)))

    def _version(self, connection: psycopg.Connection[Any], schema: str) -> int:
        """Return the table's version: 0 if it doesn't exist."""
        # not by to_regclass(), which may remember that there is no such table, although another session has made it
        row = connection.execute(
            "select obj_description(c.oid, 'pg_class') from pg_catalog.pg_class c where c.relname = %s "
            "and c.relnamespace = (select n.oid from pg_catalog.pg_namespace n where n.nspname = %s)",
            [self.name, schema],
        ).fetchone()
        return version_of(row[0]) if row else 0


def version_of(comment: str | None) -> int:
    """Return the version that a table's comment names: 1 if it names none."""
    found = _VERSION.match(comment or "")
    return int(found[1]) if found else 1
