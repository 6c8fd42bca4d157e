"""The metrics of `tidemark logs ship --port`: whether Elasticsearch takes the lines."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

if TYPE_CHECKING:
    from collections.abc import Iterator

    from prometheus_client.core import Metric

    from tidemark.logs.ship import Totals


class ShipperCollector(Collector):
    """Tells the totals of a shipper at each scrape."""

    def __init__(self, totals: Totals) -> None:
        """Tell these totals, which the shipper changes."""
        self._totals = totals

    def collect(self) -> Iterator[Metric]:
        """Yield the families of one scrape."""
        lines = CounterMetricFamily(
            "tidemark_logs_lines",
            "Lines that Elasticsearch stored or refused since this shipper started.",
            labels=["outcome"],
        )
        lines.add_metric(["stored"], self._totals.stored)
        lines.add_metric(["refused"], self._totals.refused)
        yield lines
        yield GaugeMetricFamily(
            "tidemark_logs_failing_since_timestamp_seconds",
            "Since when Elasticsearch does not answer or takes no lines; 0 while it takes them.",
            self._totals.failing_since,
        )
