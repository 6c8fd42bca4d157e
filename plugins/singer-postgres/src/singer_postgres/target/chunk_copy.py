"""Copies a chunk's file into a table. Of the file, no more than a piece is in memory."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from psycopg import sql
from psycopg.copy import LibpqWriter
from psycopg.generators import copy_to

from singer_postgres.target import files

if TYPE_CHECKING:
    from pathlib import Path

    import psycopg
    from psycopg.abc import Buffer

    from singer_postgres.core.wire import Changes, Chunk


class _FlushingWriter(LibpqWriter):
    """Waits until the server has taken what was written.

    psycopg's own writer waits only on some platforms. On the others libpq buffers a whole chunk if the server is slow.
    """

    def write(self, data: Buffer) -> None:
        """Write `data`, which must fit into libpq's buffer."""
        self.connection.wait(copy_to(self._pgconn, data, flush=True))


def copy(
    connection: psycopg.Connection[Any], path: Path, chunk: Chunk | Changes, into: sql.Composable, *, binary: bool
) -> int:
    """Copy a file in the caller's transaction, and return how many rows it has.

    Args:
        into: a table, with the names of its columns if the file does not have all.
        binary: the file has COPY's binary form.

    Raises:
        ChunkLostError: the file is missing, or differs from what the tap wrote.
    """
    form = sql.SQL("binary" if binary else "text")
    statement = sql.SQL("COPY {} FROM STDIN (FORMAT {})").format(into, form)
    with connection.cursor() as cursor:
        with cursor.copy(statement, writer=_FlushingWriter(cursor)) as writer:
            for piece in files.pieces(path, chunk):
                writer.write(piece)
        return cursor.rowcount
