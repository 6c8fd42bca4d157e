"""Gathers the changes of all streams in memory, and writes them into files for the target."""

from __future__ import annotations

from typing import TYPE_CHECKING

from singer_postgres.core.wire import Changes
from singer_postgres.tap.chunk_files import BINARY_HEADER, BINARY_TRAILER, ChunkFile
from singer_postgres.tap.events import ChangesRead

if TYPE_CHECKING:
    import queue
    from collections.abc import Callable
    from pathlib import Path

    from singer_postgres.tap.events import Event
    from singer_postgres.tap.log.log_stream import LogStream


class ChangeFiles:
    """The changes of one run that are in no file yet, and the files that they go into."""

    def __init__(
        self, room: Callable[[], Path], events: queue.Queue[Event], *, binary: bool, buffer_bytes: int
    ) -> None:
        """Start with nothing.

        Args:
            room: returns the path of a new file, as soon as there is room for one.
            events: receives the files.
            binary: rows are in COPY's binary form.
            buffer_bytes: the size of changes in memory, of all streams together, at which they go into files.
        """
        self._room, self._events = room, events
        self._binary, self._buffer_bytes = binary, buffer_bytes
        self._bytes = 0
        self._changed: list[LogStream] = []

    def add(self, stream: LogStream, row: bytes) -> None:
        """Add a change, and write all into files if they are many."""
        if not stream.count:
            self._changed.append(stream)
        stream.buffer += row
        stream.count += 1
        self._bytes += len(row)
        if self._bytes >= self._buffer_bytes:
            for each in list(self._changed):
                self.write(each)

    def leave(self, stream: LogStream) -> None:
        """Forget a stream's changes."""
        if stream.count:
            self._changed.remove(stream)
            self._bytes -= len(stream.buffer)

    def write(self, stream: LogStream) -> None:
        """Write a stream's changes into a file, if there are any, and announce it."""
        if not stream.count:
            return
        assert stream.rows
        file = ChunkFile(self._room())
        if self._binary:
            file.write(BINARY_HEADER)
        file.write(stream.buffer)
        if self._binary:
            file.write(BINARY_TRAILER)
        file.close()
        rows = stream.rows
        # an update of a key is two rows, so they are not counted here
        changes = Changes(
            rows=stream.count,
            bytes=file.bytes,
            crc32=file.crc32,
            binary=self._binary,
            has_unchanged=rows.has_unchanged,
            has_moved=rows.has_moved,
            has_truncated=rows.has_truncated,
        )
        rows.has_unchanged = rows.has_moved = rows.has_truncated = False
        self.leave(stream)
        stream.buffer, stream.count = bytearray(), 0
        self._events.put(ChangesRead(stream.plan, changes, file.path))
