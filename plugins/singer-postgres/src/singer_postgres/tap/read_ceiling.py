"""`max_source_mb_per_s`: how fast all of the tap's sessions together may read from the source."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

# A pause ends soon when the run is stopped, or when another session waits for the table that is being read.
_LONGEST_NAP_S = 0.05
# a shorter pause lasts longer than it should
_SHORTEST_PAUSE_S = 0.01
# What is received at once, and what one statement reads. The statement's time counts for statement_timeout, and its
# snapshot keeps the source from removing dead rows.
_PIECE_S, _RANGE_S = 0.05, 10.0
_LEAST_PIECE, _LEAST_RANGE = 2**13, 2**20


class ReadCeiling:
    """A token bucket without a store: what was not read in one second can't be read in the next.

    Each reader is charged for what it has received, and then waits until its turn has come again. So the bytes of any
    time are at most those that the ceiling allows, and one more piece of each reader.
    """

    def __init__(
        self,
        mb_per_s: float,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        """Start with nothing read.

        Args:
            mb_per_s: the most that may be read in a second, in MiB.
        """
        self._bytes_per_s = mb_per_s * 2**20
        self._clock, self._sleep = clock, sleep
        self._free_at = clock()
        self._alone = threading.Lock()

    @property
    def piece_bytes(self) -> int:
        """How much a reader should receive between two pauses."""
        return max(_LEAST_PIECE, round(self._bytes_per_s * _PIECE_S))

    @property
    def range_bytes(self) -> int:
        """How much one statement should read."""
        return max(_LEAST_RANGE, round(self._bytes_per_s * _RANGE_S))

    def pause(self, received: int, *, is_over: Callable[[], bool]) -> float:
        """Pause after so many bytes; return for how many seconds.

        Args:
            is_over: whether to return at once. It is asked many times in a second.
        """
        began = self._clock()
        with self._alone:
            self._free_at = until = max(began, self._free_at) + received / self._bytes_per_s
        if until - began < _SHORTEST_PAUSE_S:
            return 0.0
        while (left_s := until - self._clock()) > 0 and not is_over():
            self._sleep(min(left_s, _LONGEST_NAP_S))
        return self._clock() - began
