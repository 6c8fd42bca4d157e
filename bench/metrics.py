"""`python -m bench.metrics`: times scrapes of a long history, and measures what Prometheus keeps of them.

Options: STREAMS, RUNS of each stream, SCRAPES.
"""

from __future__ import annotations

import os
import shutil
import statistics
import subprocess
import tempfile
import time
import urllib.request
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
from rich.console import Console
from tests.conftest import REPOSITORY
from tests.integration.stages import make_checkout
from tests.ports import free_port

from bench.report import DIRECTORY
from singer_postgres.core.warehouse import reconcile_history, rejects, run_history, stream_totals
from singer_postgres.core.warehouse.state_table import StateTable

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.integration.checkout import Checkout

_RESULT = DIRECTORY / "metrics.md"
_CONSOLE = Console()
_EVERY_S = 30
_FEW = 4
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
        took, text, memory = _scrape(checkout, scrapes)
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
        f"| size of a scrape | {len(text) / 1e6:.1f} MB |",
        f"| resident memory of the exporter after the last | {memory / 1e6:.0f} MB |",
    ]
    if shutil.which("promtool"):
        series = [line for line in text.splitlines() if not line.startswith("#")]
        few = [line for line in series if 'stream="' not in line or _stream(line) < _FEW]
        lines += [f"| on Prometheus' disk, {streams} streams | {_shown(series)} |"]
        lines += [f"| on Prometheus' disk, {_FEW} streams | {_shown(few)} |"]
    _RESULT.write_text("\n".join(lines) + "\n")
    _CONSOLE.print(_RESULT.read_text())


def _fill(checkout: Checkout, streams: int, runs: int) -> None:
    with checkout.connect("warehouse") as connection:
        for table in (run_history.TABLE, stream_totals.TABLE, reconcile_history.TABLE, rejects.TABLE):
            table.ensure(connection, "raw")
        StateTable("raw").ensure(connection)
        connection.execute(_FILL.format(streams=streams, runs=runs))


def _scrape(checkout: Checkout, scrapes: int) -> tuple[list[float], str, int]:
    """Return the seconds of each scrape, the text of the last one, and the exporter's bytes of memory."""
    port = free_port()
    url = f"http://127.0.0.1:{port}/metrics"
    took, text = [], ""
    with checkout.start("metrics", "--port", str(port)) as process:
        try:
            assert process.stdout
            process.stdout.readline()
            for _ in range(scrapes):
                began = time.perf_counter()
                with urllib.request.urlopen(url) as response:
                    text = response.read().decode()
                took.append(time.perf_counter() - began)
            memory = psutil.Process(process.pid).memory_info().rss
        finally:
            process.terminate()
    return took, text, memory


def _stream(line: str) -> int:
    return int(line.partition('stream="public-table_')[2].partition('"')[0])


def _shown(series: list[str]) -> str:
    """Say what Prometheus keeps of a day of these series, from two hours of them."""
    with tempfile.TemporaryDirectory() as directory:
        scrapes = Path(directory) / "scrapes"
        with scrapes.open("w") as file:
            file.writelines(_two_hours(series))
        blocks = Path(directory) / "blocks"
        command = ["promtool", "tsdb", "create-blocks-from", "openmetrics", "--quiet", str(scrapes), str(blocks)]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        size = sum(path.stat().st_size for path in blocks.rglob("*") if path.is_file())
    return f"{len(series):,} series, {size * 12 / 1e6:.1f} MB a day (a scrape each {_EVERY_S} s)"


def _two_hours(series: list[str]) -> Iterator[str]:
    """Yield the series at each scrape, as OpenMetrics. What counts seconds grows, what says an instant moves hourly."""
    begin = 1_800_000_000
    for line in series:
        name, _, value = line.rpartition(" ")
        for second in range(0, 7200, _EVERY_S):
            now = float(value)
            if "lag_seconds" in name or "scrape_duration" in name:
                now += second % 3600 + second / 7919
            elif "timestamp" in name or "_total" in name:
                now += second // 3600 * 3600
            yield f"{name} {now!r} {begin + second}\n"
    yield "# EOF\n"


if __name__ == "__main__":
    os.chdir(REPOSITORY)
    main()
