"""The rights in each database: roles that the shipped SQL creates. Every embedded server gets them.

You can run the SQL again at any time. For a server of your own: `tidemark roles warehouse | psql …`.
"""

from __future__ import annotations

from importlib import resources
from typing import TYPE_CHECKING, Any

from psycopg import sql

from tidemark.project.connections import connect

if TYPE_CHECKING:
    from collections.abc import Mapping

    import psycopg
    from pydantic import SecretStr

    from tidemark.project.database_settings import DatabaseSettings, ServerName


# the roles of the SQL that can log in
LOGINS = {
    "tidemark_reader",
    "tidemark_loader",
    "tidemark_transformer",
    "tidemark_watcher",
    "tidemark_grafana",
    "airflow",
}


def statements(side: ServerName) -> str:
    """Return the SQL of one database's roles."""
    return resources.files(__package__).joinpath(f"{side}.sql").read_text(encoding="utf-8")


def apply(admin: DatabaseSettings, passwords: Mapping[str, SecretStr]) -> None:
    """Create or update the roles in the database of `admin`, and set their passwords."""
    with connect(admin) as connection:
        if connection.execute("select pg_is_in_recovery()").fetchone() == (True,):
            # a standby has its primary's roles
            return
        with connection.transaction():
            _apply(connection, admin.side, passwords)


def _apply(connection: psycopg.Connection[Any], side: ServerName, passwords: Mapping[str, SecretStr]) -> None:
    # even if the database's default is read-only
    connection.execute("set transaction read write")
    connection.execute(statements(side).encode())
    for role, password in passwords.items():
        connection.execute(
            sql.SQL("ALTER ROLE {} LOGIN PASSWORD {}").format(
                sql.Identifier(role), sql.Literal(password.get_secret_value())
            )
        )
