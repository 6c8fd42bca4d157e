"""Connections to the warehouse, with the session settings that the wire format asks for."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import psycopg

from singer_postgres import session

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

APPLICATION_NAME = "tidemark target-postgres"


@dataclass(frozen=True)
class Warehouse:
    """How to connect.

    Attributes:
        parameters: gives libpq's; called late, as it may start an SSH tunnel.
        schema: where tables go; None to keep the source's schemas.
    """

    parameters: Callable[[], Mapping[str, Any]]
    schema: str | None
    statement_timeout_s: float = 0
    lock_timeout_s: float = 0

    def connect(self) -> psycopg.Connection[Any]:
        """Return a connection in autocommit."""
        parameters: dict[str, Any] = {
            "connect_timeout": 30,
            "keepalives_idle": 30,
            "keepalives_interval": 10,
            "keepalives_count": 3,
            **self.parameters(),
            "application_name": APPLICATION_NAME,
        }
        connection = psycopg.connect(autocommit=True, **parameters)
        connection.execute(
            session.statements(statement_timeout_s=self.statement_timeout_s, lock_timeout_s=self.lock_timeout_s)
        )
        # a statement that runs on for a client that is gone keeps its locks until it ends; not every platform can tell
        with suppress(psycopg.Error):
            connection.execute("SET client_connection_check_interval = '1s'")
        return connection
