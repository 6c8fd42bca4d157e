"""`python -m bench.reconcile`: times a comparison of equal rows against reading them. Options: ROWS, ROUNDS."""

from __future__ import annotations

import os
import statistics
import sys
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rich.console import Console
from tests.conftest import REPOSITORY
from tests.integration.stages import make_checkout

from bench.report import DIRECTORY

if TYPE_CHECKING:
    from tests.integration.checkout import Checkout

_TABLE = """
    create table lines (line_id bigint primary key, order_id bigint not null, product_id bigint not null,
        quantity int not null, unit_price numeric(12,2) not null, discount numeric(12,2) not null,
        created_at timestamptz not null, updated_at timestamptz not null);
    insert into lines
    select n, n / 3, n %% 1000, 1 + n %% 5, n %% 10000 / 100.0, n %% 7, stamp, stamp
    from generate_series(1, %s) n, lateral (select timestamptz '2025-01-01' + n * interval '1 second') s (stamp);
"""
_RESULT = DIRECTORY / "reconcile.md"
_CONSOLE = Console()


def main() -> None:
    """Load a table, then time `COPY … TO '/dev/null'` of each side and `tidemark reconcile`, in turns."""
    rows, rounds = int(os.environ.get("ROWS") or 10_000_000), int(os.environ.get("ROUNDS") or 3)
    work = REPOSITORY / ".tidemark" / "bench"
    work.mkdir(parents=True, exist_ok=True)
    with contextmanager(make_checkout)("embedded", parent=work) as checkout:
        checkout.tidemark("up")
        with _CONSOLE.status("Making the rows, and loading them"):
            _load(checkout, rows)
        figures: dict[str, list[float]] = {"source": [], "warehouse": [], "reconcile": []}
        for turn in range(rounds):
            for side, table in (("source", "lines"), ("warehouse", "raw.lines")):
                with checkout.connect(side) as connection:
                    began = time.monotonic()
                    connection.execute(f"copy {table} to '/dev/null'".encode())
                    figures[side].append(time.monotonic() - began)
            figures["reconcile"].append(_reconcile(checkout))
            latest = ", ".join(f"{name} {seconds[-1]:.1f} s" for name, seconds in figures.items())
            _CONSOLE.print(f"round {turn + 1} of {rounds}: {latest}")
    _write(rows, figures)


def _load(checkout: Checkout, rows: int) -> None:
    with checkout.connect("source") as connection:
        connection.execute((_TABLE % rows).encode())
        connection.execute("vacuum analyze lines")
    checkout.env |= {
        "TAP_POSTGRES__SELECT": '["public-lines.*"]',
        "TAP_POSTGRES__METADATA": (
            '{"public-lines": {"replication-method": "INCREMENTAL", "replication-key": "updated_at"}}'
        ),
    }
    checkout.extract_and_load()
    with checkout.connect("warehouse") as connection:
        connection.execute("vacuum analyze raw.lines")


def _reconcile(checkout: Checkout) -> float:
    """Return the command's seconds, including its start-up."""
    began = time.monotonic()
    run = checkout.start("reconcile")
    printed, _ = run.communicate()
    if run.returncode:
        sys.exit(f"error: {printed}")
    return time.monotonic() - began


def _write(rows: int, figures: dict[str, list[float]]) -> None:
    source, warehouse, reconcile = (statistics.median(seconds) for seconds in figures.values())
    shown = {
        name: f"{min(seconds):.1f} / {statistics.median(seconds):.1f} / {max(seconds):.1f}"
        for name, seconds in figures.items()
    }
    _RESULT.write_text(
        f"""# What `tidemark reconcile` costs

{rows:,} equal rows of 8 columns, both servers on one machine with {os.cpu_count()} cores. Seconds: minimum / median /
maximum of {len(figures["source"])} rounds, taken in turns by `make bench-reconcile`.

| | seconds |
|---|---|
| `COPY lines TO '/dev/null'` in the source | {shown["source"]} |
| `COPY raw.lines TO '/dev/null'` in the warehouse | {shown["warehouse"]} |
| `tidemark reconcile`, including start-up | {shown["reconcile"]} |

The reconcile takes {reconcile / max(source, warehouse):.2f} times as long as the COPY of the slower side, and
{reconcile / (source + warehouse):.2f} times as long as both.
"""
    )
    _CONSOLE.print(_RESULT.read_text())


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(130)
