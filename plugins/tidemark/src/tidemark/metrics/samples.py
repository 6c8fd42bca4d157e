"""Collects samples into families, as Prometheus' client exports them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, InfoMetricFamily

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from tidemark.metrics.catalogue import Metric

Family = CounterMetricFamily | GaugeMetricFamily | InfoMetricFamily


class Samples:
    """The samples of one scrape."""

    def __init__(self) -> None:
        self._families: dict[str, Family] = {}

    def add(self, metric: Metric, value: float | None, *labels: str) -> None:
        """Add a sample; None adds nothing."""
        if value is None:
            return
        family = self._families.get(metric.name)
        if family is None:
            family = self._families[metric.name] = _family(metric)
        if isinstance(family, InfoMetricFamily):
            family.add_metric((), dict(zip(metric.labels, labels, strict=True)))
        else:
            assert len(labels) == len(metric.labels)
            family.add_metric(labels, float(value))

    def merge(self, other: Samples) -> None:
        """Add all samples of other metrics."""
        self._families |= other._families

    def name_sources(self, names: Mapping[str, str]) -> None:
        """Replace schemas by the names of the sources that are loaded into them; a schema of no source stays.

        Args:
            names: the sources' names by their schemas.
        """
        for family in self._families.values():
            for sample in family.samples:
                if name := names.get(sample.labels.get("source", "")):
                    sample.labels["source"] = name

    def of(self, metric: Metric) -> dict[tuple[str, ...], float]:
        """Return the samples of a metric by the values of its labels."""
        family = self._families.get(metric.name)
        return {tuple(sample.labels.values()): sample.value for sample in family.samples} if family else {}

    def __iter__(self) -> Iterator[Family]:
        return iter(self._families.values())


def _family(metric: Metric) -> Family:
    name = metric.name.removesuffix("_total").removesuffix("_info")
    if metric.kind == "info":
        return InfoMetricFamily(name, metric.about)
    kind = CounterMetricFamily if metric.kind == "counter" else GaugeMetricFamily
    return kind(name, metric.about, labels=metric.labels)
