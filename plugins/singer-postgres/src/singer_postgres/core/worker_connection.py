"""The connection of a thread that reads or loads: opened when needed, and opened again after it broke."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from singer_postgres.core import poolers
from singer_postgres.core.sql_compat import Error

if TYPE_CHECKING:
    from collections.abc import Callable

_C = TypeVar("_C", bound=Any)


class WorkerConnection(Generic[_C]):
    """A connection of either driver.

    Attributes:
        pid: the server's process of the latest session, which may have ended; 0 before the first.
    """

    def __init__(
        self, open_: Callable[[], _C], *, end_previous: Callable[[_C, int], object] = lambda _connection, _pid: None
    ) -> None:
        """Set how to connect.

        Args:
            end_previous: called with each further connection and the process of the one before it.
        """
        self._open = open_
        self._end_previous = end_previous
        self._connection: _C | None = None
        self.pid = 0

    def connect(self) -> _C:
        """Return an open connection."""
        if self._connection is None or self._connection.closed:
            self._connection = self._open()
            if self.pid:
                self._end_previous(self._connection, self.pid)
            self.pid = poolers.server_pid(self._connection)
        return self._connection

    def close(self) -> None:
        """Close the connection."""
        if self._connection is not None:
            with suppress(Error):
                self._connection.close()
        self._connection = None
