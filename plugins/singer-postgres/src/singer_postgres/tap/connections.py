"""Connections to the source: read-only, named, with the session settings that the wire format needs."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING

import psycopg2
from psycopg2 import extensions, sql

from singer_postgres.core import driver_errors, poolers, session

if TYPE_CHECKING:
    from collections.abc import Callable

    from psycopg2.extensions import connection as Connection  # noqa: N812

_LOGGER = logging.getLogger("tap-postgres")


@dataclass(frozen=True)
class SourceConnector:
    """How to connect.

    Attributes:
        dsn: returns libpq's connection string; called late, because it may start an SSH tunnel.
        mask_key: a statement that gives a session the key of sha256 masks.
    """

    dsn: Callable[[], str]
    statement_timeout_s: float = 0
    lock_timeout_s: float = 0
    mask_key: sql.Composable | None = None

    def connect(self) -> Connection:
        """Return a connection in autocommit. Retry for a while if the server is busy or still starting."""
        return driver_errors.retry(
            self.connect_once,
            is_transient=lambda error: driver_errors.is_transient(error, reached=False),
            on_retry=lambda error, wait_s: _LOGGER.warning(
                "Connecting again: wait_s=%.1f, error=%s", wait_s, str(error).strip()
            ),
        )

    def connect_once(self) -> Connection:
        """Return a connection in autocommit, whose transactions are read-only.

        Raises:
            psycopg2.OperationalError: the connection failed.
            PoolerError: the connection goes through a pooler that keeps no session.
        """
        connection = self._open()
        poolers.require_session(connection, self._open, variables="TAP_POSTGRES_HOST and _PORT")
        with connection.cursor() as cursor:
            cursor.execute(
                session.statements(
                    connection.info.server_version,
                    statement_timeout_s=self.statement_timeout_s,
                    lock_timeout_s=self.lock_timeout_s,
                )
                # a policy that would hide rows raises an error instead
                + "; SET row_security = off"
                + "; SET default_transaction_read_only = on"
            )
            if self.mask_key is not None:
                cursor.execute(self.mask_key)
        return connection

    def _open(self) -> Connection:
        connection = psycopg2.connect(
            self.dsn(),
            application_name=session.application_name(session.TAP),
            connect_timeout=30,
            # the driver converts texts with the encoding that it connected with
            client_encoding="UTF8",
            keepalives_idle=30,
            keepalives_interval=10,
            keepalives_count=3,
        )
        connection.autocommit = True
        # with dates_as_string, the MeltanoLabs tap makes all connections of the process return dates as texts
        for type_ in (extensions.PYDATE, extensions.PYDATETIME, extensions.PYDATETIMETZ):
            extensions.register_type(type_, connection)
        return connection
