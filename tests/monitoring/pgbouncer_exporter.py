"""PgBouncer's console under the names of the community's pgbouncer_exporter 0.11, as far as dashboards use them.

Run it with the address of the console and a port.
"""

from __future__ import annotations

import sys
import threading
from typing import TYPE_CHECKING

import psycopg
from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector
from psycopg.rows import dict_row

if TYPE_CHECKING:
    from collections.abc import Iterator

    from prometheus_client.core import Metric

_POOLS = {
    "cl_active": "client_active_connections",
    "cl_waiting": "client_waiting_connections",
    "sv_active": "server_active_connections",
    "sv_idle": "server_idle_connections",
    "maxwait": "client_maxwait_seconds",
}


class _Console(Collector):
    def __init__(self, address: str) -> None:
        self._address = address

    def collect(self) -> Iterator[Metric]:
        with psycopg.connect(self._address, autocommit=True, row_factory=dict_row) as connection:
            pools = connection.execute("SHOW POOLS").fetchall()
            totals = connection.execute("SHOW STATS_TOTALS").fetchall()
        for column, name in _POOLS.items():
            family = GaugeMetricFamily(f"pgbouncer_pools_{name}", column, labels=["database", "user"])
            for pool in pools:
                family.add_metric([pool["database"], pool["user"]], pool[column])
            yield family
        queries = CounterMetricFamily("pgbouncer_stats_totals_queries_pooled", "query_count", labels=["database"])
        for database in totals:
            queries.add_metric([database["database"]], database["query_count"])
        yield queries


def main() -> None:
    """Serve until the process is ended."""
    registry = CollectorRegistry()
    registry.register(_Console(sys.argv[1]))
    start_http_server(int(sys.argv[2]), "127.0.0.1", registry)
    threading.Event().wait()


if __name__ == "__main__":
    main()
