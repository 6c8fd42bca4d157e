"""COPY data on its way to the server, no more of it in memory than what was read last."""

from __future__ import annotations

from typing import TYPE_CHECKING

from psycopg.copy import LibpqWriter
from psycopg.generators import copy_to

if TYPE_CHECKING:
    from psycopg.abc import Buffer


class FlushingWriter(LibpqWriter):
    """Waits until the server has taken what is written.

    psycopg's own only waits on some platforms; on others libpq keeps what the server is too slow for, a whole chunk.
    """

    def write(self, data: Buffer) -> None:
        """Write `data`, of a size that libpq can keep."""
        self.connection.wait(copy_to(self._pgconn, data, flush=True))
