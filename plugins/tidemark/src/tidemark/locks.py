"""Locks that the kernel frees when their holder dies, however it dies."""

from __future__ import annotations

import fcntl
import os
from contextlib import contextmanager
from typing import TYPE_CHECKING

from tidemark.errors import BusyError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@contextmanager
def hold(path: Path, *, doing: str, wait: bool = False) -> Iterator[int]:
    """Hold the lock file `path` and yield its descriptor.

    A child process that inherits the descriptor keeps the lock after this process is gone: that is how a run
    that lost its parent still keeps the next one out.

    Args:
        path: made when missing, never removed (removing it would let two holders in).
        doing: what the holder does, for the message to whoever comes second.
        wait: wait for the lock rather than raise.

    Raises:
        BusyError: somebody else holds it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            holder = os.pread(descriptor, 32, 0).decode().strip() or "unknown"
            raise BusyError(
                f"Another process (pid {holder}) is {doing}; wait for it to end, then run this again."
            ) from None
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, str(os.getpid()).encode(), 0)
        yield descriptor
    finally:
        os.close(descriptor)
