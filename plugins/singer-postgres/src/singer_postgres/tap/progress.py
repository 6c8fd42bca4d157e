"""Logs each stream's progress every few seconds."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import logging

_EVERY_S = 5.0


@dataclass
class _StreamProgress:
    estimate: float | None
    began: float = field(default_factory=time.monotonic)
    rows: int = 0
    bytes: int = 0


class Progress:
    """The progress of the streams that are being read."""

    def __init__(self, logger: logging.Logger) -> None:
        self._logger = logger
        self._streams: dict[str, _StreamProgress] = {}
        self._logged_at = time.monotonic()

    def opened(self, stream: str, rows_estimate: float | None) -> None:
        """Start with a stream. If the estimate is None or not positive, the stream has no estimate."""
        self._streams[stream] = _StreamProgress(rows_estimate if rows_estimate and rows_estimate > 0 else None)

    def read(self, stream: str, *, rows: int, bytes_: int) -> None:
        """Count the rows and bytes of a chunk."""
        self._streams[stream].rows += rows
        self._streams[stream].bytes += bytes_

    def finished(self, stream: str) -> None:
        """Stop logging a stream."""
        del self._streams[stream]

    def tell(self) -> None:
        """Log a line for each stream, if the last ones are old enough."""
        if time.monotonic() - self._logged_at < _EVERY_S:
            return
        self._logged_at = time.monotonic()
        for name, stream in self._streams.items():
            seconds = self._logged_at - stream.began
            self._logger.info("%s", line(name, stream.rows, stream.bytes, stream.estimate, seconds))


def line(name: str, rows: int, bytes_: int, estimate: float | None, seconds: float) -> str:
    """Return the log line of a stream.

    >>> line("public-orders", 500_000, 40 * 2**20, 1_000_000, 10.0)
    'public-orders: 500,000 rows, 40 MB, 50,000 rows/s, about 50 %, 10 s to go'
    """
    rate = rows / seconds if seconds else 0
    text = f"{name}: {rows:,} rows, {bytes_ / 2**20:.0f} MB, {rate:,.0f} rows/s"
    if estimate is None or not rate:
        return text
    left = max(0, estimate - rows) / rate
    return f"{text}, about {min(99, 100 * rows / estimate):.0f} %, {left:.0f} s to go"
