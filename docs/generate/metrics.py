"""The metrics of `tidemark metrics`, from the list that its collectors use."""

from __future__ import annotations

from repository import row

from tidemark.logs.metrics import ShipperCollector
from tidemark.logs.ship import Totals
from tidemark.metrics import catalogue

_HEAD = """\
# Metrics

`tidemark metrics` serves these on http://127.0.0.1:9464/metrics, or writes them to a file for node_exporter with
`--textfile`. It reads Tidemark's tables in the warehouse as `TIDEMARK_MONITOR_USER`, Meltano's state, the schedules and
the backups. It changes nothing.

- The label `source` is the source's name, as in `tidemark source list`. `stream` is the Singer stream, as in
  `public-orders`.
- Counters count committed rows and ended runs. The warehouse keeps them, so they survive restarts of the exporter.
- A scrape looks at the latest runs only, so it takes the same time however long the history is.
- If a part can't be read, its `tidemark_up` is 0 and its metrics are missing. The other parts are exported anyway.
- There are about 35 series a stream, 10 a model and 40 others. Error codes add a series for each one that occurred.
- Names that begin with `tidemark_slot_` are kept free for replication slots.
"""

_OF_SHIPPER = """
## The log shipper

`tidemark logs ship --port 9465` serves these.

| metric | type | labels | series | what a sample says |
|---|---|---|---|---|"""


def page() -> str:
    """Return the page."""
    parts = [_HEAD, "| metric | type | labels | series | what a sample says |\n|---|---|---|---|---|"]
    for metric in catalogue.ALL:
        labels = ", ".join(f"`{label}`" for label in metric.labels)
        parts.append(row(f"`{metric.name}`", metric.kind, labels, metric.series, metric.about))
    parts.append(_OF_SHIPPER)
    for family in ShipperCollector(Totals()).collect():
        first, *more = family.samples
        labels = ", ".join(f"`{label}`" for label in first.labels)
        parts.append(row(f"`{first.name}`", family.type, labels, str(1 + len(more)), family.documentation))
    return "\n".join(parts) + "\n"
