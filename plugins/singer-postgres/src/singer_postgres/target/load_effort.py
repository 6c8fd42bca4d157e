"""What the load of a stream took: the seconds of each step, and the retries."""

from __future__ import annotations

import threading
import time
from collections import Counter
from contextlib import contextmanager
from typing import TYPE_CHECKING, Literal

from singer_postgres.core.warehouse.run_history import COSTS, Work

if TYPE_CHECKING:
    from collections.abc import Iterator

    from singer_postgres.core.read_report import ReadReport


class LoadEffort:
    """The effort of one stream's workers, added up."""

    def __init__(self) -> None:
        self.retries = 0
        self._nanoseconds: Counter[str] = Counter()
        self._alone = threading.Lock()

    def retried(self) -> None:
        """Count that a part of the stream is loaded again after an error."""
        with self._alone:
            self.retries += 1

    @contextmanager
    def timed(self, step: Literal["copying", "merging"]) -> Iterator[None]:
        """Add the time of the `with` block to a step."""
        began = time.monotonic_ns()
        try:
            yield
        finally:
            with self._alone:
                self._nanoseconds[step] += time.monotonic_ns() - began

    def with_report(self, report: ReadReport) -> Work:
        """Return it for the history, together with what the tap reports of its part."""
        return Work(
            retries=report.retries + self.retries,
            seconds_reading=report.seconds,
            seconds_copying=self._nanoseconds["copying"] / 1e9,
            seconds_merging=self._nanoseconds["merging"] / 1e9,
            held_by=report.held_by,
            held_seconds=report.held_seconds,
            **{name: getattr(report, name) for name in COSTS},
        )
