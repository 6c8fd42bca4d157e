"""Keeps the session that streams a slot while a target takes records, and ends the run if the target takes none."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from singer_postgres.core.errors import ReplicationError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from singer_postgres.tap.log.replication import Replication

_TICK_S = 0.5
# the server ends a session that is silent for wal_sender_timeout, a minute by default
_TELL_EVERY_S = 5.0


class KeptSession:
    """A thread that speaks to the server while the main thread waits for its turn to write.

    A target that stands still would have the main thread wait for ever, so a signal interrupts its write.

    Attributes:
        lock: whoever uses the session holds it.
        progress_at: when the main thread read the log last, by the monotonic clock.
    """

    def __init__(self, replication: Replication, slot: str, *, stall_s: float) -> None:
        """Start the thread. Only the main thread may do so.

        Args:
            stall_s: how long the target may take nothing.
        """
        self._replication, self._slot, self._stall_s = replication, slot, stall_s
        self.lock = threading.Lock()
        self.progress_at = time.monotonic()
        self._writing_since: float | None = None
        self._over = threading.Event()
        self._before = signal.signal(signal.SIGUSR1, self._refuse_standstill)
        self._thread = threading.Thread(target=self._tell, name="log-keepalive", daemon=True)
        self._thread.start()

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Watch over the writing of a message.

        Raises:
            ReplicationError: the target takes nothing.
        """
        self._writing_since = time.monotonic()
        try:
            yield
        finally:
            self._writing_since = None

    def close(self) -> None:
        """End the thread."""
        self._over.set()
        self._thread.join()
        signal.signal(signal.SIGUSR1, self._before)

    def _stands_still(self) -> bool:
        since = self._writing_since
        return since is not None and time.monotonic() - since > self._stall_s

    def _tell(self) -> None:
        while not self._over.wait(_TICK_S):
            if self._stands_still():
                signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGUSR1)
            # a session that ended is noticed by whoever reads it
            with self.lock, suppress(ReplicationError):
                now = time.monotonic()
                if now - self.progress_at < self._stall_s and now - self._replication.told_at >= _TELL_EVERY_S:
                    # what was confirmed before
                    self._replication.confirm(0)

    def _refuse_standstill(self, *_: Any) -> None:
        if self._over.is_set() or not self._stands_still():
            # a record was taken meanwhile
            return
        # nobody takes what is left in the buffer, which would be written at the end of this process
        with Path(os.devnull).open("wb") as nowhere:
            os.dup2(nowhere.fileno(), sys.stdout.fileno())
        msg = (
            f"The target has taken no record for {self._stall_s:.0f} s (stall_seconds), so the session that streams "
            f"the slot {self._slot} was ended: otherwise the source could not shut down. Nothing is lost: find out "
            "what the target waits for, and run this again."
        )
        raise ReplicationError(msg)
