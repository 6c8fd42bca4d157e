"""Connects to a database of the pipeline, or says in one line why that failed and which variable to check."""

from __future__ import annotations

import logging
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import psycopg
from psycopg import conninfo

from singer_postgres.core import poolers, session
from singer_postgres.core.errors import PoolerError, one_line
from tidemark.errors import (
    Interruption,
    SourceUnreachableError,
    TidemarkError,
    UnreachableError,
    UsageError,
    WarehouseUnreachableError,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tidemark.project.database_settings import DatabaseSettings

_TIMEOUT_S = 10
_CANCEL_S = 5.0
# psycopg warns on the console if a connection ends in an interrupted transaction; our own errors are enough
logging.getLogger("psycopg").setLevel(logging.CRITICAL)

# For reading catalogs. One snapshot, because with DDL beside it a table could have columns whose types are gone. With
# an empty search_path, types come with their schemas, and a user's own objects can't replace the system's. The lock
# timeout limits the wait for a table that another session alters. All this is local to the transaction: settings of the
# session would stay in a pool for the next client.
SNAPSHOT = (
    "set transaction isolation level repeatable read, read only; "
    "set local search_path = ''; set local lock_timeout = '10s'"
)
# by side; a database of another kind has none
UNREACHABLE = {"source": SourceUnreachableError, "warehouse": WarehouseUnreachableError}


class _Connection(psycopg.Connection[Any]):
    """A connection whose query ends with the command.

    psycopg cancels a query for KeyboardInterrupt alone, and the server would go on with one that nobody waits for: with
    a slot that it makes, for instance, and keeps WAL for.
    """

    def wait(self, *arguments: Any, **named: Any) -> Any:
        """Wait for the server's answer, as psycopg does."""
        try:
            return super().wait(*arguments, **named)
        except Interruption:
            if self.pgconn.transaction_status == psycopg.pq.TransactionStatus.ACTIVE:
                with suppress(psycopg.Error):
                    self.cancel_safe(timeout=_CANCEL_S)
            raise


def url(side: DatabaseSettings, *, with_password: bool = True) -> str:
    """Return a libpq URL for `side`."""
    password = f":{quote(side.password.get_secret_value(), safe='')}" if side.password and with_password else ""
    query = ""
    if side.ssl_enable:
        query = f"?sslmode={side.ssl_mode}"
        if side.ssl_certificate_authority:
            query += f"&sslrootcert={quote(side.ssl_certificate_authority, safe='')}"
    host = f"[{side.address}]" if ":" in side.address else quote(side.address, safe="")
    return (
        f"postgresql://{quote(side.user, safe='')}{password}@{host}:{side.port}/{quote(side.database, safe='')}{query}"
    )


def parameters(side: DatabaseSettings) -> dict[str, Any]:
    """Return libpq's parameters for `side`, as a dict that callers can extend."""
    return dict(conninfo.conninfo_to_dict(url(side)))


def connect(
    side: DatabaseSettings, *, database: str | None = None, any_pool: bool = False, timeout_s: int = _TIMEOUT_S
) -> psycopg.Connection[Any]:
    """Connect to `side`, or to another `database` on its server, in UTC and autocommit.

    Args:
        any_pool: accept a pooler that keeps no sessions.
        timeout_s: how long to wait for the server.

    Raises:
        UnreachableError: the server can't be reached, or refuses this role.
        UsageError: a pooler in between keeps no sessions.
    """

    def another() -> psycopg.Connection[Any]:
        return _open(side, database, timeout_s)

    connection = another()
    if not any_pool:
        try:
            poolers.require_session(connection, another, variables=f"{side.login_prefix}_HOST and _PORT")
        except PoolerError as error:
            raise UsageError(str(error)) from error
        connection.execute(session.as_sql(session.unlimited(connection.info.server_version)))
    # These are statements, because poolers refuse start-up options. psycopg can only read the ISO date style, but a
    # database may have another one as its default. No session of ours may wait for a lock forever.
    connection.execute("set time zone 'UTC'; set datestyle to 'ISO'; set lock_timeout = '60s'")
    return connection


def _open(side: DatabaseSettings, database: str | None, timeout_s: int) -> psycopg.Connection[Any]:
    parameters: dict[str, Any] = {
        "connect_timeout": timeout_s,
        "application_name": "tidemark",
        "client_encoding": "UTF8",
    }
    if database:
        parameters["dbname"] = database
    try:
        return _Connection.connect(conninfo.make_conninfo(url(side), **parameters), autocommit=True)
    except psycopg.OperationalError as error:
        raise unreachable(side, error) from error


def unreachable(side: DatabaseSettings, error: psycopg.OperationalError) -> UnreachableError:
    """Return the error of a connection that could not be opened, as a user reads it."""
    return UNREACHABLE.get(side.side, UnreachableError)(_explain(side, error))


@contextmanager
def explained(connection: psycopg.Connection[Any], side: DatabaseSettings) -> Iterator[None]:
    """Say in one line what went wrong in a session, and in which database.

    Raises:
        TidemarkError: the session broke, or the server refused a statement.
    """
    try:
        yield
    except psycopg.Error as error:
        if connection.broken:
            raise UNREACHABLE.get(side.side, UnreachableError)(
                f"A session in the {side.side} broke: {one_line(error).rstrip('.')}; run this again."
            ) from error
        raise TidemarkError(f"The {side.side} refused a statement: {one_line(error).rstrip('.')}.") from error


def _explain(side: DatabaseSettings, error: psycopg.OperationalError) -> str:
    """Say in one line what is wrong, and which variable to check."""
    # libpq's message has several lines, and the first one has the reason
    reason = str(error).strip().splitlines()[0]
    for noise in ("connection failed: ", "FATAL:  ", "FATAL: "):
        reason = reason.replace(noise, "")
    return f"Cannot connect to the {side} as {side.user!r}: {reason}; {_advice(side, reason.lower())}."


def _advice(side: DatabaseSettings, reason: str) -> str:
    if "starting up" in reason or "too many clients" in reason or "connection slots" in reason:
        return "run this again in a moment"
    if "startup parameter" in reason:
        return "unset PGOPTIONS, or let the pooler accept it (ignore_startup_parameters)"
    if side.embedded:
        if "password" in reason:
            return (
                "`tidemark up` gives its roles the passwords of .env, as the server's owner: put back the "
                "TIDEMARK_ADMIN_PASSWORD that its data was made with, or delete its data with `tidemark reset`"
            )
        return "start it with `tidemark up`"
    settings_by_word = {
        "ssl error": "SSL_ENABLE, _SSL_MODE and _SSL_CERTIFICATE_AUTHORITY",
        "support ssl": "SSL_ENABLE, _SSL_MODE and _SSL_CERTIFICATE_AUTHORITY",
        "certificate": "SSL_ENABLE, _SSL_MODE and _SSL_CERTIFICATE_AUTHORITY",
        "password": "USER and _PASSWORD",
        "role": "USER",
        "does not exist": "DATABASE",
    }
    variables = next((names for word, names in settings_by_word.items() if word in reason), "HOST and _PORT")
    prefix = side.login_prefix if variables.startswith(("HOST", "USER")) else side.prefix
    return f"check {prefix}_{variables} in the environment or .env"
