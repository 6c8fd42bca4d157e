"""Shows PgBouncer's pools under the official exporter's names. Debian's exporter fails on PgBouncer 1.18."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

import psycopg
from prometheus_client import REGISTRY, start_http_server
from prometheus_client.core import GaugeMetricFamily
from psycopg.rows import dict_row

if TYPE_CHECKING:
    from collections.abc import Iterator


class _Pools:
    def collect(self) -> Iterator[GaugeMetricFamily]:
        waiting = GaugeMetricFamily(
            "pgbouncer_pools_client_waiting_connections", "Clients that wait for a server.", labels=["database", "user"]
        )
        address = os.environ["PGBOUNCER_EXPORTER_CONNECTION_STRING"]
        with psycopg.connect(address, autocommit=True, row_factory=dict_row) as connection:
            for pool in connection.execute("show pools"):
                waiting.add_metric([pool["database"], pool["user"]], pool["cl_waiting"])
        yield waiting


if __name__ == "__main__":
    start_http_server(9127)
    REGISTRY.register(_Pools())
    while True:
        time.sleep(60)
