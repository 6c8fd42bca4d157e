"""Chunk files: limited in size and number, on a disk that tap and target share.

A file belongs to the tap until it is announced, and to the target after that; the target removes it once its rows are
committed. A new file is created only while fewer than the limit exist, so a target that stops also stops the tap.
"""

from __future__ import annotations

import errno
import fcntl
import io
import os
import shutil
import tempfile
import threading
import time
import zlib
from contextlib import suppress
from pathlib import Path
from typing import IO, TYPE_CHECKING, NoReturn

from singer_postgres.core.errors import ChunkDirectoryError, DiskFullError

if TYPE_CHECKING:
    from collections.abc import Callable

    from singer_postgres.core.errors import SingerPostgresError
    from singer_postgres.tap.read_ceiling import ReadCeiling

_POLL_S = 0.01
_SWEEP_S = 60.0
# the size of the buffer in front of a file
_BUFFER_BYTES, _SMALLEST_BUFFER_BYTES = 2**20, 2**13


class ReadingStopped(Exception):  # noqa: N818 - not an error: the run is being ended
    """The run is over, so threads that wait for room stop waiting."""


class ChunkFiles:
    """The files of one run, in a directory of their own below `base`.

    Directories of killed runs are removed. Directories of live runs are locked, and stay.
    """

    def __init__(self, base: Path, *, limit: int) -> None:
        """Create the run's directory.

        Raises:
            SingerPostgresError: it can't be created.
        """
        self.limit = limit
        self._room = threading.RLock()
        self._existing: set[Path] = set()
        self._announced: set[Path] = set()
        self._count = 0
        self._stopped = threading.Event()
        try:
            # only the owner may read it: the files contain rows of the database
            base.mkdir(mode=0o700, parents=True, exist_ok=True)
            with (base / "lock").open("w") as sweeping:
                # otherwise another run's sweep could remove the directory before it is locked
                _lock(sweeping, base)
                _sweep(base)
                self.directory = Path(tempfile.mkdtemp(prefix="run-", dir=base))
                self._lock = (self.directory / "lock").open("w")
                fcntl.flock(self._lock, fcntl.LOCK_EX)
        except OSError as error:
            raise _unusable(base, error) from error

    def new(self, gave_way: threading.Event | None = None) -> Path:
        """Return the path of a new file, as soon as there is room for one.

        Args:
            gave_way: set when the file is no longer needed.

        Raises:
            ReadingStopped: the run is over, or the file is no longer needed.
        """
        while not (gave_way and gave_way.is_set()):
            if (path := self.new_if_room()) is not None:
                return path
            time.sleep(_POLL_S)
        raise ReadingStopped

    def new_if_room(self) -> Path | None:
        """Return the path of a new file; None if there is no room for one yet.

        Raises:
            ReadingStopped: the run is over.
        """
        if self._stopped.is_set():
            raise ReadingStopped
        with self._room:
            if self.outstanding() >= self.limit:
                return None
            self._count += 1
            path = self.directory / f"{self._count:06}.copy"
            self._existing.add(path)
            return path

    def outstanding(self) -> int:
        """Return the number of files that exist or will soon."""
        with self._room:
            for path in [path for path in self._announced if not path.exists()]:
                self._announced.discard(path)
                self._existing.discard(path)
            return len(self._existing)

    def on_their_way(self) -> int:
        """Return the number of announced files that the target has not removed."""
        with self._room:
            self.outstanding()
            return len(self._announced)

    def announce(self, path: Path) -> None:
        """Hand a file over to the target."""
        with self._room:
            self._announced.add(path)

    def discard(self, path: Path) -> None:
        """Remove a file that was not announced."""
        path.unlink(missing_ok=True)
        with self._room:
            self._existing.discard(path)

    def stop(self) -> None:
        """End all waits for room."""
        self._stopped.set()

    @property
    def is_stopped(self) -> bool:
        """Whether the run is over."""
        return self._stopped.is_set()

    def abort(self, status: int = 1) -> NoReturn:
        """End the process at once. Announced files stay for the target; the next run removes the rest."""
        for path in self._existing - self._announced:
            path.unlink(missing_ok=True)
        os._exit(status)

    def close(self) -> None:
        """Remove the directory, and any files that the target left.

        It is renamed first. Otherwise a worker that still reads a failed stream could create a file during the removal,
        and the directory would stay.
        """
        # somebody may have removed it already
        with suppress(OSError):
            self.directory = self.directory.rename(self.directory.with_suffix(".ended"))
        shutil.rmtree(self.directory, ignore_errors=True)
        self._lock.close()


def _unusable(base: Path, error: OSError) -> SingerPostgresError:
    """Return the error to raise if nothing can be written below `base`. It ends the run: all streams write there."""
    if error.errno in {errno.ENOSPC, errno.EDQUOT}:
        ours: SingerPostgresError = DiskFullError(
            f"chunk_dir {base} is full: free some space, or name another directory."
        )
    else:
        ours = ChunkDirectoryError(f"chunk_dir {base} can't be used: {error.strerror}; name another directory.")
    ours.ends_run = True
    return ours


def _lock(file: IO[str], base: Path) -> None:
    """Take the lock for a sweep, which lasts until the files of killed runs are removed.

    Raises:
        SingerPostgresError: another process keeps the lock.
    """
    deadline = time.monotonic() + _SWEEP_S
    while True:
        try:
            return fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > deadline:
                msg = (
                    f"Another process has held {file.name} for {_SWEEP_S:.0f} s, and it should take only moments; end "
                    f"it (fuser {file.name}), or set chunk_dir to another directory than {base}."
                )
                raise ChunkDirectoryError(msg) from None
        time.sleep(_POLL_S)


def _sweep(base: Path) -> None:
    """Remove the directories of killed runs."""
    for lock in base.glob("run-*/lock"):
        with suppress(OSError), lock.open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(lock.parent, ignore_errors=True)


# COPY's binary form: the header of a file, and the trailer after its last row
BINARY_HEADER = b"PGCOPY\n\xff\r\n\0" + bytes(8)
BINARY_TRAILER = b"\xff\xff"


class ChunkFile:
    """A file being written, with its size and checksum. Only its owner may read it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.bytes = self.crc32 = 0
        self.rows: int | None = None
        try:
            self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        except OSError as error:
            raise _unusable(path.parent.parent, error) from error

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Append `data`."""
        self.crc32 = zlib.crc32(data, self.crc32)
        self.bytes += len(data)
        view = memoryview(data)
        try:
            while view:
                view = view[os.write(self._file, view) :]
        except OSError as error:
            raise _unusable(self.path.parent.parent, error) from error

    def close(self) -> None:
        """Close the file."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1


class ChunkWriter(io.RawIOBase):
    """The file object that COPY writes to: a sequence of files, each with whole rows.

    A BufferedWriter around it calls it once per buffer instead of once per row, which saves most of the time that
    Python would take. A BufferedWriter never splits a single write, and psycopg2 writes row by row, so each call brings
    whole rows.

    Args:
        files: creates further files.
        first: the first file's path, for which there is room already.
        chunk_bytes: the maximum size of a file, unless it contains a single buffer.
        binary: the rows come in COPY's binary form.
        done: receives each complete file except the last.
        most_files: raise Overflow instead of starting another file; None for any number.
        gave_way: set when reading must stop, even while this waits.
        ceiling: how fast to read.
    """

    class Overflow(Exception):  # noqa: N818 - the reader's cue to cut the table into ranges
        """The rows don't fit into `most_files` chunks."""

    def __init__(  # noqa: PLR0913 - each argument has a name
        self,
        files: ChunkFiles,
        first: Path,
        *,
        chunk_bytes: int,
        binary: bool,
        done: Callable[[ChunkFile], None],
        most_files: int | None = None,
        gave_way: threading.Event | None = None,
        ceiling: ReadCeiling | None = None,
    ) -> None:
        super().__init__()
        self._files = files
        self._chunk_bytes = chunk_bytes
        self._header, self._trailer = (BINARY_HEADER, BINARY_TRAILER) if binary else (b"", b"")
        self._done = done
        self._most_files = most_files
        self._gave_way = gave_way
        self._ceiling = ceiling
        self._file = ChunkFile(first)
        self._full_files = 0
        self._handed_on = self._abandoned = False
        self.waited_s = 0.0
        """Seconds that it waited for room."""
        self.paused_s = 0.0
        """Seconds that it paused for the ceiling."""
        self.received = 0
        """Bytes that came from COPY."""

    def buffered(self) -> io.BufferedWriter:
        """Return the buffer to write rows to."""
        most = self._ceiling.piece_bytes if self._ceiling else _BUFFER_BYTES
        size = max(_SMALLEST_BUFFER_BYTES, min(_BUFFER_BYTES, most, self._chunk_bytes // 8))
        return io.BufferedWriter(self, size)  # type: ignore[arg-type]

    def writable(self) -> bool:
        """Return True."""
        return True

    def write(self, data: bytes) -> int:  # type: ignore[override]
        """Write rows to the current file, or to a new one if the current one would become too large."""
        if self._abandoned:
            # a discarded buffer flushes once more
            return len(data)
        self.received += len(data)
        self._pause(len(data))
        if self._file.bytes and self._file.bytes + len(data) + len(self._trailer) > self._chunk_bytes:
            if self._full_files + 1 == self._most_files:
                raise self.Overflow
            self._file.write(self._trailer)
            self._file.close()
            # set before, because creating the next file may fail
            self._full_files += 1
            self._handed_on = True
            self._done(self._file)
            full_at = time.monotonic()
            self._file = ChunkFile(self._files.new(self._gave_way))
            self.waited_s += time.monotonic() - full_at
            self._handed_on = False
            self._file.write(self._header)
        self._file.write(data)
        return len(data)

    def _pause(self, received: int) -> None:
        """Pause to stay below the ceiling.

        Raises:
            ReadingStopped: the run is over, or reading must stop.
        """
        if self._ceiling is None:
            return
        self.paused_s += self._ceiling.pause(received, is_over=self._is_over)
        if self._is_over():
            raise ReadingStopped

    def _is_over(self) -> bool:
        return self._files.is_stopped or (self._gave_way is not None and self._gave_way.is_set())

    def finish(self, rows: int) -> ChunkFile | None:
        """Return the last file, complete, or None if there was no row.

        Args:
            rows: the total number of rows from COPY.
        """
        self._file.close()
        if not rows:
            self._files.discard(self._file.path)
            return None
        if not self._full_files:
            self._file.rows = rows
        return self._file

    def abandon(self) -> None:
        """Remove the current file, and ignore further rows."""
        self._abandoned = True
        self._file.close()
        if not self._handed_on:
            self._files.discard(self._file.path)
