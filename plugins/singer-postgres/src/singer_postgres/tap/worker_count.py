"""The number of workers: fewer than `max_parallel` if the source accepts no more connections."""

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
# the advice if no other worker has a connection
NEEDED = (
    "; reading needs two connections or more (with max_parallel = 1, one of them for the snapshot), and uses up to "
    "twice max_parallel: raise the limit of the role, the database or the server"
)


class Crowded(Exception):  # noqa: N818 - not an error: other workers go on
    """The source accepts no more connections, and other workers have some."""


class Workers:
    """The workers of a run."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._leaving = threading.Lock()

    def connection(self, worker: WorkerConnection[Connection]) -> Connection:
        """Return a worker's connection; open it if necessary.

        Raises:
            Crowded: the source accepts no more connections, and other workers have some. This worker is no longer
                counted.
            psycopg2.Error: the connection failed.
        """
        try:
            return worker.connect()
        except psycopg2.Error as error:
            if self.leaves(error):
                raise Crowded from error
            raise

    def leaves(self, error: BaseException) -> bool:
        """Return whether a worker without a connection must end because others read; if so, stop counting it."""
        with self._leaving:
            if self._count == 1 or not driver_errors.is_out_of_connections(error):
                return False
            self._count -= 1
        what = one_line(error)
        _LOGGER.warning("Reading with fewer workers than max_parallel: workers=%d, error=%s", self._count, what)
        return True
