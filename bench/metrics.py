"""`python -m bench.metrics`: times scrapes of a long history. Options: STREAMS, RUNS of each stream, SCRAPES."""

from __future__ import annotations

import os
import statistics
import time
import urllib.request
from contextlib import contextmanager

import psutil
from rich.console import Console
from tests.conftest import REPOSITORY
from tests.integration.conftest import Checkout, free_port, make_checkout

from bench.report import DIRECTORY
from singer_postgres.core.warehouse import reconcile_history, rejects, run_history, stream_totals
from singer_postgres.core.warehouse.state_table import StateTable

_RESULT = DIRECTORY / "metrics.md"
_CONSOLE = Console()
_FILL = """
    insert into raw._tidemark_stream_totals (source, stream, rows_read, rows_inserted, succeeded, succeeded_at,
        extracted_at, failed)
    select '7/1', 'public-table_' || s, 1000, 1000, {runs}, now(), now(), '{{"lock_busy": 3}}'
    from generate_series(1, {streams}) s;
    insert into raw._tidemark_state (source, stream, table_name, bookmark, extracted_at)
    select '7/1', 'public-table_' || s, 'table_' || s, now()::text, now() from generate_series(1, {streams}) s;
    insert into raw._tidemark_runs (source, stream, run_id, table_name, started_at, ended_at, outcome, rows_read,
        rows_updated, bookmark_after, extracted_at, error_code)
    select '7/1', 'public-table_' || s, 'run ' || n, 'table_' || s, now() - n * interval '5 minutes',
        now() - n * interval '5 minutes' + interval '20 seconds',
        case when n % 50 = 7 then 'failed' else 'succeeded' end, 1000, 10, now()::text, now(),
        case when n % 50 = 7 then 'lock_busy' end
    from generate_series(1, {runs}) n cross join generate_series(1, {streams}) s;
    insert into raw._tidemark_reconciles (source, stream, run_id, compared_at, missing, different, extra)
    select '7/1', 'public-table_' || s, 'r', now() - n * interval '1 day', 0, 0, 0
    from generate_series(1, 90) n cross join generate_series(1, {streams}) s;
    analyze
"""


def main() -> None:
    """Fill the history, scrape it, and write the times and the exporter's memory."""
    streams, runs = int(os.environ.get("STREAMS") or 400), int(os.environ.get("RUNS") or 2500)
    scrapes = int(os.environ.get("SCRAPES") or 20)
    with contextmanager(make_checkout)(stage="up") as checkout:
        with _CONSOLE.status(f"Writing {streams * runs:,} runs"):
            _fill(checkout, streams, runs)
        took, size, memory = _scrape(checkout, scrapes)
    lines = [
        "# Scrapes of a long history",
        "",
        f"{streams} streams with {runs:,} runs each, {scrapes} scrapes of `tidemark metrics` in one process:",
        "`make bench-metrics`.",
        "",
        "| | |",
        "|---|---|",
        f"| a scrape, median | {statistics.median(took):.2f} s |",
        f"| a scrape, slowest | {max(took):.2f} s |",
        f"| size of a scrape | {size / 1e6:.1f} MB |",
        f"| resident memory of the exporter after the last | {memory / 1e6:.0f} MB |",
    ]
    _RESULT.write_text("\n".join(lines) + "\n")
    _CONSOLE.print(_RESULT.read_text())


def _fill(checkout: Checkout, streams: int, runs: int) -> None:
    with checkout.connect("warehouse") as connection:
        for table in (run_history.TABLE, stream_totals.TABLE, reconcile_history.TABLE, rejects.TABLE):
            table.ensure(connection, "raw")
        StateTable("raw").ensure(connection)
        connection.execute(_FILL.format(streams=streams, runs=runs))


def _scrape(checkout: Checkout, scrapes: int) -> tuple[list[float], int, int]:
    """Return the seconds of each scrape, and the bytes of the last one and of the exporter."""
    port = free_port()
    url = f"http://127.0.0.1:{port}/metrics"
    took, size = [], 0
    with checkout.start("metrics", "--port", str(port)) as process:
        try:
            assert process.stdout
            process.stdout.readline()
            for _ in range(scrapes):
                began = time.perf_counter()
                with urllib.request.urlopen(url) as response:
                    size = len(response.read())
                took.append(time.perf_counter() - began)
            memory = psutil.Process(process.pid).memory_info().rss
        finally:
            process.terminate()
    return took, size, memory


if __name__ == "__main__":
    os.chdir(REPOSITORY)
    main()
