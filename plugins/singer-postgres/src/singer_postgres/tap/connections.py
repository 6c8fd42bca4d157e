"""Connections to the source: read only, named, with the session settings that the wire format asks for."""

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
        dsn: gives libpq's connection string; called late, as it may start an SSH tunnel.
        mask_key: a statement that gives a session the key of its masks.
    """

    dsn: Callable[[], str]
    statement_timeout_s: float = 0
    lock_timeout_s: float = 0
    mask_key: sql.Composable | None = None

    def connect(self) -> Connection:
        """Return a connection in autocommit, waiting a little for a server that is busy or not quite there yet."""
        return driver_errors.retry(
            self.connect_once,
            is_transient=lambda error: driver_errors.is_transient(error, reached=False),
            on_retry=lambda error, wait_s: _LOGGER.warning(
                "Connecting again in %.1f s: %s", wait_s, str(error).strip()
            ),
        )

    def connect_once(self) -> Connection:
        """Return a connection in autocommit; transactions on it are read-only and of one snapshot.

        Raises:
            psycopg2.OperationalError: there is none to be had.
            PooledError: a pooler is in between that keeps no sessions.
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
                # a row that a policy hides is an error, not a row less
                + "; SET row_security = off"
                + "; SET default_transaction_read_only = on"
            )
            if self.mask_key is not None:
                cursor.execute(self.mask_key)
        return connection

    def _open(self) -> Connection:
        connection = psycopg2.connect(
            self.dsn(),
            application_name=session.TAP,
            connect_timeout=30,
            # the driver takes the encoding that it connected with for its own
            client_encoding="UTF8",
            keepalives_idle=30,
            keepalives_interval=10,
            keepalives_count=3,
        )
        connection.autocommit = True
        # with dates_as_string, the MeltanoLabs tap has instants come as texts on all connections of the process
        for type_ in (extensions.PYDATE, extensions.PYDATETIME, extensions.PYDATETIMETZ):
            extensions.register_type(type_, connection)
        return connection
