"""The identity of a source database."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from psycopg2.extensions import connection as Connection  # noqa: N812


def identity(connection: Connection) -> str:
    """Return the server's system identifier and the database's oid, which together identify this database.

    A standby has the same identity as its primary. A dump that is restored elsewhere has another. If the role may not
    read the system identifier, the database's name takes its place.
    """
    with connection.cursor() as cursor:
        cursor.execute(
            "select oid::text, datname, has_function_privilege('pg_catalog.pg_control_system()', 'execute') "
            "from pg_catalog.pg_database where datname = current_database()"
        )
        row = cursor.fetchone()
        assert row
        oid, name, may_ask = row
        if not may_ask:
            return f"{name}/{oid}"
        cursor.execute("select system_identifier::text from pg_catalog.pg_control_system()")
        found = cursor.fetchone()
        assert found
        return f"{found[0]}/{oid}"
