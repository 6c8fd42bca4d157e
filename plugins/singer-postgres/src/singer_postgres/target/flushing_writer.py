"""Sends COPY data to the server, and holds no more of it in memory than the last piece."""

from __future__ import annotations

from typing import TYPE_CHECKING

from psycopg.copy import LibpqWriter
from psycopg.generators import copy_to

if TYPE_CHECKING:
    from psycopg.abc import Buffer


class FlushingWriter(LibpqWriter):
    """Waits until the server has taken what was written.

    psycopg's own writer waits only on some platforms. On the others libpq buffers a whole chunk if the server is slow.
    """

    def write(self, data: Buffer) -> None:
        """Write `data`, which must fit into libpq's buffer."""
        self.connection.wait(copy_to(self._pgconn, data, flush=True))
