"""What the target says while it works: the positions that it has committed, and that a long merge is at work."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

from singer_postgres.core.errors import ReplicationError
from singer_postgres.core.lsn import lsn_of
from singer_postgres.core.wire import ALIVE

if TYPE_CHECKING:
    from pathlib import Path


class Acknowledgements:
    """Reads the FIFO that each cut names.

    Attributes:
        path: of the FIFO.
        position: everything before it is committed in the warehouse.
    """

    def __init__(self, directory: Path, position: int, *, stall_s: float) -> None:
        """Start at a position.

        Args:
            stall_s: how long the target may say nothing.
        """
        self.path, self.position = directory / "acknowledged", position
        self._stall_s = stall_s
        self._heard_at = time.monotonic()

    def open(self) -> None:
        """Create the FIFO."""
        os.mkfifo(self.path, 0o600)
        # for writing too: otherwise it would be at its end whenever no target has it open
        self._file = os.open(self.path, os.O_RDWR | os.O_NONBLOCK)

    def read(self) -> bool:
        """Read what has come; return whether more is committed now."""
        before = self.position
        try:
            while data := os.read(self._file, 4096):
                # a line is written at once, so none is cut in two
                said = data.decode().split()
                self.position = max([self.position, *(lsn_of(each) for each in said if each != ALIVE)])
                self._heard_at = time.monotonic()
        except BlockingIOError:
            pass
        return self.position > before

    def await_from_now(self) -> None:
        """Expect to hear something from now on: until now the target had nothing to do."""
        self._heard_at = time.monotonic()

    def refuse_standstill(self, slot: str) -> None:
        """Check that the target is at work.

        Raises:
            ReplicationError: nothing came for too long.
        """
        if time.monotonic() - self._heard_at > self._stall_s:
            msg = (
                f"The target has loaded nothing for {self._stall_s:.0f} s (stall_seconds), so the session that streams "
                f"the slot {slot} was ended: otherwise the source could not shut down. Nothing is lost: find out what "
                "the target waits for, and run this again."
            )
            raise ReplicationError(msg)
