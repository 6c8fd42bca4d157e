"""Logs every few seconds how many changes of the log have arrived, and how long the last ones took."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import logging

_EVERY_S = 5.0
# while there are none
_QUIET_S = 60.0


class LogProgress:
    """The progress of one run.

    Changes are `on_their_way` with a position, and have arrived once a position is acknowledged.
    """

    def __init__(self, logger: logging.Logger, *, arrived: str) -> None:
        """Begin with nothing.

        Args:
            arrived: what to say of the changes that have arrived: `loaded`, or `sent` if the target acknowledges none.
        """
        self._logger, self._arrived = logger, arrived
        self._waiting: list[tuple[int, int, datetime]] = []
        self._changes = 0
        self._lag_s: float | None = None
        self._said_at, self._said_changes = time.monotonic() - _QUIET_S, 0

    def on_their_way(self, position: int, changes: int, committed_at: datetime) -> None:
        """Note changes.

        Args:
            position: the end of the log that they are in.
            committed_at: when the first of them was committed, by the source's clock.
        """
        self._waiting.append((position, changes, committed_at))

    def acknowledged(self, position: int) -> None:
        """Note that everything before a position has arrived."""
        while self._waiting and self._waiting[0][0] <= position:
            _, changes, committed_at = self._waiting.pop(0)
            self._changes += changes
            self._lag_s = _since(committed_at)

    def tell(self, *, last: bool = False) -> None:
        """Log a line, if the last one is old enough; or of the `last` changes, if it lacked some."""
        quiet = self._changes == self._said_changes and not any(changes for _, changes, _ in self._waiting)
        wait_s = _QUIET_S if quiet else 0 if last else _EVERY_S
        if self._lag_s is None or time.monotonic() - self._said_at < wait_s:
            return
        self._said_at, self._said_changes = time.monotonic(), self._changes
        # what waits for long has not arrived at all yet
        lag_s = max([self._lag_s, *(_since(at) for _, changes, at in self._waiting if changes)])
        self._logger.info(
            "Log: %s changes %s, %.1f s after they were committed",
            f"{self._changes:,}",
            self._arrived,
            lag_s,
            extra={"followed": {"changes": self._changes, "arrived": self._arrived, "lag_seconds": round(lag_s, 1)}},
        )


def _since(at: datetime) -> float:
    return max(0.0, (datetime.now(UTC) - at).total_seconds())
