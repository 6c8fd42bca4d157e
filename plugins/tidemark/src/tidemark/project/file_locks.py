"""File locks that the kernel frees when their holder ends, even if it is killed."""

from __future__ import annotations

import fcntl
import os
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

import psutil

from tidemark.errors import BusyError, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

# the longest thing to wait for is the start of one or two servers
_PATIENCE_S = 300.0
_POLL_S = 0.1


@contextmanager
def hold(path: Path, *, doing: str, wait: bool = False, shared: bool = False) -> Iterator[int]:
    """Hold the lock file `path`, and yield its descriptor.

    A child process that inherits the descriptor keeps the lock after this process has ended. So a run that lost its
    parent still keeps the next run out.

    Args:
        path: created if missing, and never removed, because then two processes could hold the lock.
        doing: what the holder does, for the message of the next process.
        wait: wait some minutes for the lock, instead of raising at once.
        shared: hold the lock together with others that share it, and keep out those that don't.

    Raises:
        BusyError: another process holds the lock.
        UsageError: the file belongs to another user.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    except PermissionError:
        raise UsageError(
            f"{path} belongs to user {path.stat().st_uid} and you are user {os.geteuid()}; "
            f"run this as that user, or give the project's files to yours (sudo chown -R)."
        ) from None
    try:
        try:
            alone = _lock(descriptor, patience_s=_PATIENCE_S if wait else 0, shared=shared)
        except BlockingIOError:
            raise BusyError(
                f"Another process (pid {_holder(descriptor)}) is {doing}; wait for it to end, then run this again."
            ) from None
        if alone:
            os.ftruncate(descriptor, 0)
        share(descriptor, os.getpid())
        yield descriptor
    finally:
        os.close(descriptor)


def _lock(descriptor: int, *, patience_s: float, shared: bool) -> bool:
    """Lock the file, and return whether no other process holds it.

    Raises:
        BlockingIOError: another process still holds it.
    """
    deadline = time.monotonic() + patience_s
    while True:
        try:
            return _try_lock(descriptor, shared=shared)
        except BlockingIOError:
            if time.monotonic() > deadline:
                raise
        time.sleep(_POLL_S)


def _try_lock(descriptor: int, *, shared: bool) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        fcntl.flock(descriptor, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
        return not shared
    if shared:
        # a downgrade, which never waits
        fcntl.flock(descriptor, fcntl.LOCK_SH)
    return True


def share(descriptor: int, pid: int) -> None:
    """Record that process `pid` holds the lock too."""
    os.pwrite(descriptor, f"{pid}\n".encode(), os.fstat(descriptor).st_size)


def holder(path: Path) -> int | None:
    """Return the id of a process that holds the lock; None if none does."""
    if not path.exists():
        return None
    descriptor = os.open(path, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        found = _holder(descriptor)
        return int(found) if found.isdigit() else None
    finally:
        os.close(descriptor)
    return None


def _holder(descriptor: int) -> str:
    """Return the pid of the first holder that still runs."""
    pids = os.pread(descriptor, 4096, 0).decode().split()
    return next((pid for pid in pids if psutil.pid_exists(int(pid))), "unknown")
