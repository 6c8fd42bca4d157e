"""Connections to the warehouse, with the session settings that the wire format needs."""

from __future__ import annotations

import logging
import time
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from singer_postgres.core import driver_errors, poolers, session
from singer_postgres.core.errors import TransactionOpenError
from singer_postgres.core.sql_compat import Error

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    import psycopg

_LOGGER = logging.getLogger("target-postgres")
# the server notices within half a minute that a client's machine is gone
_KEEPALIVES = "SET tcp_keepalives_idle = 10; SET tcp_keepalives_interval = 5; SET tcp_keepalives_count = 4"
# Once a commit is acknowledged, Meltano and the source's slot go on from there: a crash must not undo it.
_DURABLE = "SELECT set_config('synchronous_commit', 'on', false) WHERE current_setting('synchronous_commit') = 'off'"
# how long the server may take to end a transaction after its connection broke
_SETTLE_S = 60.0
_PROGRAM = "tidemark target-postgres"


@dataclass(frozen=True)
class WarehouseConnector:
    """The connection settings of the warehouse.

    Attributes:
        parameters: returns libpq's parameters. It is called late, as it may start an SSH tunnel.
        schema: the schema for all tables; None keeps the source's schemas.
    """

    parameters: Callable[[], Mapping[str, Any]]
    schema: str | None
    statement_timeout_s: float = 0
    lock_timeout_s: float = 0

    def connect(self) -> psycopg.Connection[Any]:
        """Return a connection in autocommit. Retry for a while if the server is busy or still starting."""
        return driver_errors.retry(
            self.connect_once,
            is_transient=lambda error: driver_errors.is_transient(error, reached=False),
            on_retry=lambda error, wait_s: _LOGGER.warning("Connecting again: wait_s=%.1f, error=%s", wait_s, error),
        )

    def connect_once(self) -> psycopg.Connection[Any]:
        """Return a connection in autocommit.

        Raises:
            psycopg.OperationalError: the server can't be reached.
            PooledError: the connection goes through a pooler that keeps no session.
        """
        connection = self._open()
        poolers.require_session(connection, self._open, variables="TARGET_POSTGRES_HOST and _PORT")
        connection.execute(
            session.statements(
                connection.info.server_version,
                statement_timeout_s=self.statement_timeout_s,
                lock_timeout_s=self.lock_timeout_s,
            )
        )
        connection.execute(_DURABLE)
        # a statement would otherwise run on, with its locks, after its client is gone; some platforms can't check
        with suppress(Error):
            connection.execute("SET client_connection_check_interval = '1s'")
            connection.execute(_KEEPALIVES)
        return connection

    def _open(self) -> psycopg.Connection[Any]:
        parameters: dict[str, Any] = {
            "connect_timeout": 30,
            "keepalives_idle": 30,
            "keepalives_interval": 10,
            "keepalives_count": 3,
            **self.parameters(),
            "application_name": session.application_name(_PROGRAM),
        }
        import psycopg  # noqa: PLC0415 - core can be imported without a driver

        return psycopg.connect(autocommit=True, **parameters)


def end_session(connection: psycopg.Connection[Any], pid: int) -> None:
    """End our broken session `pid`. On a silent network its server process would keep waiting."""
    with suppress(Error):
        connection.execute(
            "select pg_terminate_backend(pid, 5000) from pg_catalog.pg_stat_activity "
            "where pid = %s and application_name = %s and usename = current_user",
            [pid, session.application_name(_PROGRAM)],
        )


def was_committed(connection: psycopg.Connection[Any], xid: str) -> bool:
    """Return whether a transaction committed whose connection broke. Wait until the server has ended it.

    Raises:
        RunError: the transaction is still open after a minute.
    """
    deadline = time.monotonic() + _SETTLE_S
    while True:
        row = connection.execute("select pg_xact_status(%s::xid8)", [xid]).fetchone()
        assert row
        if row[0] != "in progress":
            return bool(row[0] == "committed")
        if time.monotonic() > deadline:
            msg = (
                f"Transaction {xid} of the warehouse is still open {_SETTLE_S:.0f} s after its connection was lost. "
                "End its session (pg_stat_activity: backend_xid, application_name 'tidemark target-postgres …'), then "
                "run this again."
            )
            raise TransactionOpenError(msg)
        time.sleep(0.1)
