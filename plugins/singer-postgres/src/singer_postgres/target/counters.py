"""Counters of a stream's rows, which the target logs as metrics beside the SDK's count of records."""

from __future__ import annotations

import enum
import threading
from typing import TYPE_CHECKING

from singer_sdk.metrics import Counter, Tag, record_counter

if TYPE_CHECKING:
    from singer_sdk.metrics import Metric

    from singer_postgres.core.warehouse.row_counts import RowCounts

_LOG_EVERY_S = 5


class WrittenMetric(enum.StrEnum):
    """The metrics' names."""

    INSERTED = "rows_inserted"
    UPDATED = "rows_updated"
    DELETED = "rows_deleted"
    REJECTED = "rows_rejected"


class WrittenCounters:
    """The metrics of one stream that has records."""

    def __init__(self, stream: str) -> None:
        self._counters = {metric: _counter(metric, stream) for metric in WrittenMetric}

    def count(self, written: RowCounts) -> None:
        """Add the rows of a batch."""
        for metric, counter in self._counters.items():
            counter.increment(getattr(written, metric.name.lower()))

    def close(self) -> None:
        """Log the counts since the last log line."""
        for counter in self._counters.values():
            if counter.value:
                counter.exit()


class ChunkCounters:
    """The metrics of one stream that has chunks, for all threads that load them. The SDK counts only records."""

    def __init__(self, stream: str) -> None:
        self._records = record_counter(stream, log_interval=_LOG_EVERY_S)
        self._written = WrittenCounters(stream)
        self._lock = threading.Lock()

    def count(self, written: RowCounts, *, last: bool) -> None:
        """Add the rows of a chunk; `last` is that of the run."""
        with self._lock:
            self._records.increment(written.read)
            self._written.count(written)
            if last:
                self._records.exit()
                self._written.close()


def _counter(metric: WrittenMetric, stream: str) -> Counter:
    own: Metric = metric
    return Counter(own, {Tag.STREAM.value: stream}, log_interval=_LOG_EVERY_S)
