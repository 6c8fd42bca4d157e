"""Connections that streams of records share: a tap may have more streams than the server allows connections."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from psycopg.pq import TransactionStatus

if TYPE_CHECKING:
    from collections.abc import Iterator

    import psycopg

    from singer_postgres.core.warehouse.connections import WarehouseConnector


class ConnectionPool:
    """Opens as many connections as are used at the same time."""

    def __init__(self, warehouse: WarehouseConnector) -> None:
        """Start without connections."""
        self._warehouse = warehouse
        self._idle: list[psycopg.Connection[Any]] = []

    @contextmanager
    def connection(self) -> Iterator[psycopg.Connection[Any]]:
        """Lend a connection in autocommit."""
        try:
            connection = self._idle.pop()
        except IndexError:
            connection = self._warehouse.connect()
        try:
            yield connection
        finally:
            if connection.info.transaction_status == TransactionStatus.IDLE:
                self._idle.append(connection)
            else:
                connection.close()

    def close(self) -> None:
        """Close the idle connections."""
        while self._idle:
            self._idle.pop().close()
