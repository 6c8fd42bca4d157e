"""The tables that the target keeps beside the streams': made when first needed, brought up to date where older.

Each one's version is in its comment. Versions only ever add up, so that a table of any age is altered step by step; one
of a newer release is left alone, and the run refused.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from singer_postgres.core.errors import SingerPostgresError
from singer_postgres.core.sql_compat import errors, sql
from singer_postgres.core.warehouse import brief_locks

if TYPE_CHECKING:
    import psycopg

_COMMENT = "Kept by Tidemark: version {}"
# where there is such a role (`tidemark roles warehouse`), it watches runs
_MONITOR = "tidemark_monitor"
_VERSION = re.compile(r"^Kept by Tidemark: version (\d+)$")


@dataclass(frozen=True)
class SystemTable:
    """A table.

    Attributes:
        name: within the schema that the streams land in.
        steps: the statement that makes version 1, those that make version 2 of it, and so on; `{}` is the table.
    """

    name: str
    steps: tuple[str, ...]

    def in_statement(self, schema: str) -> sql.Composable:
        """Return its name as statements with parameters have it, which % introduces."""
        return sql.SQL(sql.Identifier(schema, self.name).as_string().replace("%", "%%"))

    def ensure(self, connection: psycopg.Connection[Any], schema: str) -> None:
        """Make the table, or bring it up to date.

        Raises:
            SingerPostgresError: it is of a newer release.
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
                    f"{schema}.{self.name} can't be made or altered: {error.diag.message_primary}. Let this role make "
                    f'tables in {schema}, and own the _tidemark_ tables there: GRANT CREATE ON SCHEMA "{schema}" TO …;'
                )
                raise SingerPostgresError(msg) from error

    def _make(self, connection: psycopg.Connection[Any], schema: str) -> None:
        # one at a time: others that want the same wait here, and then find it done
        connection.execute("select pg_advisory_xact_lock(hashtextextended(%s, 0))", [f"{schema}.{self.name}"])
        version = self._version(connection, schema)
        if version > len(self.steps):
            msg = (
                f"{schema}.{self.name} is of version {version}, and this release knows {len(self.steps)}: a "
                "newer one has loaded into this warehouse. Upgrade this one."
            )
            raise SingerPostgresError(msg)
        table = sql.Identifier(schema, self.name)
        for step in self.steps[version:]:
            connection.execute(sql.SQL(step).format(table))
        comment = sql.Literal(_COMMENT.format(len(self.steps)))
        connection.execute(sql.SQL("COMMENT ON TABLE {} IS {}").format(table, comment))
        if connection.execute("select 1 from pg_catalog.pg_roles where rolname = %s", [_MONITOR]).fetchone():
            connection.execute(sql.SQL("GRANT SELECT ON {} TO {}").format(table, sql.Identifier(_MONITOR)))

    def _version(self, connection: psycopg.Connection[Any], schema: str) -> int:
        """Return the version that is there: 0 where the table is missing, 1 where nothing says."""
        row = connection.execute(
            "select found is not null, obj_description(found, 'pg_class') from to_regclass(%s) found",
            [sql.Identifier(schema, self.name).as_string(connection)],
        ).fetchone()
        if not row or not row[0]:
            return 0
        found = _VERSION.match(row[1] or "")
        return int(found[1]) if found else 1
