"""Finds log files and reads their complete lines, whatever rotation does to the files meanwhile.

Nothing is remembered beyond the process: each start reads all files from their beginning. That is safe, because a line
has the same id and the same index each time, and it is what makes the files the buffer: nothing else can be lost.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tidemark.logs.sources import LinePosition, reader_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path
    from typing import BinaryIO

# a longer line is cut; Elasticsearch refuses requests above 100 MB, and nobody reads such a line
MAX_LINE = 1_000_000
_SKIPPED = 65_536


@dataclass(frozen=True)
class Line:
    """A complete line.

    Attributes:
        end: where the next line begins.
    """

    text: str
    position: LinePosition
    end: int


@dataclass
class LogFile:
    """A file, and how far its lines are stored or refused.

    Attributes:
        first: its first line. A file with another first line is another file, even if it has the same inode.
        offset: up to where all lines are stored or refused.
        seen: size and time of change when it had no line beyond that.
        stamp: the time of the last line before that.
        waits_until: when to try it again, on the clock of time.monotonic.
        wait: how long it waits until then.
        waits_because: Elasticsearch's reason for not taking its next line.
    """

    path: Path
    inode: tuple[int, int]
    first: bytes = b""
    offset: int = 0
    seen: tuple[int, int] | None = None
    stamp: str | None = None
    waits_until: float = 0.0
    wait: float = 0.0
    waits_because: str = ""

    def lines(self) -> Iterator[Line]:
        """Yield the complete lines from `offset` on. Nothing is yielded if the file is gone or was replaced."""
        try:
            file = self.path.open("rb")
        except OSError:
            return
        with file:
            status = os.fstat(file.fileno())
            if (status.st_dev, status.st_ino) != self.inode:
                # rotated since the directory was listed; the next listing finds it by its new name
                return
            first = file.readline(MAX_LINE)
            if not first.endswith(b"\n") and len(first) < MAX_LINE:
                return
            if first != self.first or status.st_size < self.offset:
                self.first, self.offset, self.stamp = first, 0, None
            file.seek(self.offset)
            at = self.offset
            while raw := file.readline(MAX_LINE):
                if not raw.endswith(b"\n") and (len(raw) < MAX_LINE or not _skip_to_end(file)):
                    # the line's writer is not done
                    break
                end = file.tell()
                yield Line(raw.decode(errors="replace").rstrip("\r\n"), LinePosition(self.path, first, at), end)
                at = end
            if at == self.offset:
                self.seen = (status.st_size, status.st_mtime_ns)


def _skip_to_end(file: BinaryIO) -> bool:
    """Go to the end of the current line; return whether there is one."""
    while piece := file.readline(_SKIPPED):
        if piece.endswith(b"\n"):
            return True
    return False


class LogFiles:
    """All log files below some directories."""

    def __init__(self, directories: Iterable[Path], *, but: Path) -> None:
        """Look there, and in all directories below, for all files `but` one, which the reader itself writes."""
        self._directories = [directory.resolve() for directory in directories]
        self._but = but.resolve()
        self._known: dict[tuple[int, int], LogFile] = {}

    def forget(self) -> None:
        """Read everything from the beginning again."""
        self._known = {}

    def unread(self, *, since: float) -> list[LogFile]:
        """Return the files that may have unread lines, the oldest first.

        Args:
            since: a file that did not change after this time is past its retention.
        """
        found: dict[tuple[int, int], LogFile] = {}
        unread: list[tuple[int, LogFile]] = []
        for path in self._paths():
            try:
                status = path.stat()
            except OSError:
                continue
            if status.st_mtime < since or not status.st_size:
                continue
            inode = (status.st_dev, status.st_ino)
            file = self._known.get(inode) or LogFile(path, inode)
            file.path = path
            found[inode] = file
            if file.seen != (status.st_size, status.st_mtime_ns):
                unread.append((status.st_mtime_ns, file))
        self._known = found
        return [file for _, file in sorted(unread, key=lambda pair: pair[0])]

    def _paths(self) -> Iterator[Path]:
        for directory in self._directories:
            for path in directory.rglob("*"):
                if reader_of(path) and path != self._but and path.is_file() and not path.is_symlink():
                    yield path
