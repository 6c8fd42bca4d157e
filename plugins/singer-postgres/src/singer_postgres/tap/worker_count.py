"""How many workers read at once: fewer than was asked for, where the source takes no more connections."""

from __future__ import annotations

import logging
import threading
from typing import TYPE_CHECKING

import psycopg2

from singer_postgres.core import driver_errors
from singer_postgres.core.errors import one_line

if TYPE_CHECKING:
    from psycopg2.extensions import connection as Connection  # noqa: N812

    from singer_postgres.core.worker_connection import WorkerConnection

_LOGGER = logging.getLogger("tap-postgres")
# what to know of an error that no other worker can make up for
NEEDED = (
    "; reading needs two connections at once, of which one holds the snapshot (max_parallel = 1), and up to twice "
    "max_parallel are used: raise the limit of the role, the database or the server"
)


class Crowded(Exception):  # noqa: N818 - not an error: other workers go on
    """The source takes no more connections than other workers have already."""


class Workers:
    """Those that are there."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._leaving = threading.Lock()

    def connection(self, worker: WorkerConnection[Connection]) -> Connection:
        """Return a worker's connection, made when it is needed.

        Raises:
            Crowded: the source accepts no more connections, and other workers have one. The worker is counted off.
            psycopg2.Error: the connection failed.
        """
        try:
            return worker.connect()
        except psycopg2.Error as error:
            if self.leaves(error):
                raise Crowded from error
            raise

    def leaves(self, error: BaseException) -> bool:
        """Return whether a worker that got no connection is to end, as there are others; count it off if so."""
        with self._leaving:
            if self._count == 1 or not driver_errors.is_out_of_connections(error):
                return False
            self._count -= 1
        what = one_line(error)
        _LOGGER.warning("Reading with %d at once, and not with more (max_parallel): %s", self._count, what)
        return True
