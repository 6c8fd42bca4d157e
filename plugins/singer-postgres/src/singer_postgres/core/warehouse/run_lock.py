"""One run at a time per table, across all machines that load into this warehouse.

Each run holds advisory locks on an idle connection of its own. The server frees them as soon as the process ends, even
if it is killed, so a killed run never blocks the next one.
"""

from __future__ import annotations

import threading
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from singer_postgres.core import advisory_locks, poolers
from singer_postgres.core.errors import BusyError, LockLostError
from singer_postgres.core.sql_compat import Error
from singer_postgres.core.warehouse.connections import end_session

if TYPE_CHECKING:
    import psycopg

    from singer_postgres.core.warehouse.connections import WarehouseConnector

_HELD = """
    select exists (select from pg_catalog.pg_locks where pid = %s and locktype = 'advisory' and granted)
"""


def key_of(schema: str, table: str) -> int:
    """Return the key of a table's lock."""
    return advisory_locks.key("tidemark load", schema, table)


class RunLock:
    """The locks of one run, one per table."""

    def __init__(self, warehouse: WarehouseConnector) -> None:
        self._warehouse = warehouse
        self._connection: psycopg.Connection[Any] | None = None
        self._pid = 0
        self._alone = threading.Lock()
        self._held: dict[int, tuple[str, str, str, bool]] = {}

    def take(self, stream: str, schema: str, table: str, *, shared: bool = False) -> None:
        """Take the lock of a table and hold it until this process ends.

        Args:
            shared: together with other runs that load parts of the same first load.

        Raises:
            BusyError: another run holds it.
        """
        key = key_of(schema, table)
        with self._alone:
            if key in self._held:
                return
            if self._connection is None:
                self._connection = self._connect()
            self._take(key, stream, schema, table, shared)
            self._held[key] = (stream, schema, table, shared)

    def renew(self) -> None:
        """Take the locks again if the connection that held them was lost.

        Raises:
            BusyError: another run took a lock meanwhile.
        """
        with self._alone:
            if self._connection is None:
                return
            try:
                self._connection.execute("select")
            except Error:
                self._connection.close()
                before = self._pid
                self._connection = self._connect()
                end_session(self._connection, before)
                for key, about in self._held.items():
                    self._take(key, *about)

    def _connect(self) -> psycopg.Connection[Any]:
        connection = self._warehouse.connect_once()
        self._pid = poolers.server_pid(connection)
        return connection

    def _take(self, key: int, stream: str, schema: str, table: str, shared: bool) -> None:  # noqa: FBT001
        assert self._connection
        if not advisory_locks.try_lock(self._connection, key, shared=shared):
            raise BusyError(self._busy(stream, schema, table, key))

    def _busy(self, stream: str, schema: str, table: str, key: int) -> str:
        assert self._connection
        who = advisory_locks.holder(self._connection, key) or "it ended just now"
        return (
            f"Another run is loading {stream} into {schema}.{table} ({who}). Wait until it ends, then run this again; "
            "no row is loaded twice."
        )

    def confirm(self, connection: psycopg.Connection[Any]) -> None:
        """Check, just before a commit, that the lock was not lost.

        This is for streams without a row in `_tidemark_state`. For the others, `StateTable.assert_owner` is safer.

        Raises:
            RunError: the lock's connection is gone, so another run may have begun.
        """
        row = connection.execute(_HELD, [self._pid]).fetchone()
        if not row or not row[0]:
            msg = (
                "The connection that keeps other runs out was lost: another run may have begun. This run loads nothing "
                "more; run this again."
            )
            raise LockLostError(msg)

    def close(self) -> None:
        """Release the locks."""
        if self._connection is not None:
            # the server takes a moment to notice a closed connection, and the next run may already wait for the locks
            with suppress(Error):
                self._connection.execute("select pg_advisory_unlock_all()")
            self._connection.close()
