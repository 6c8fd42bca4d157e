"""`python -m bench.transform`: times a full build and builds after the same change. Options: SCALES, ROWS, ROUNDS."""

from __future__ import annotations

import os
import statistics
import sys
import time
from collections import defaultdict
from contextlib import contextmanager
from dataclasses import dataclass

from rich.console import Console
from tests.conftest import REPOSITORY
from tests.integration.conftest import Checkout, make_checkout

from bench.report import DIRECTORY

_RESULT = DIRECTORY / "transform.md"
_CONSOLE = Console()
_LATEST = """
    select model, seconds, coalesce(rows_written, 0) from marts._tidemark_model_runs
    where invocation_id = (select invocation_id from marts._tidemark_model_runs order by started_at desc limit 1)
"""


@dataclass(frozen=True)
class Build:
    """One build: dbt's seconds including start-up, the WAL it wrote, and each model's seconds and rows."""

    seconds: float
    wal_bytes: int
    models: dict[str, tuple[float, int]]


def main() -> None:
    """Build the demo's marts at each scale, in full and after changes of equal size."""
    scales = [float(scale) for scale in (os.environ.get("SCALES") or "1 5").split()]
    rows, rounds = int(os.environ.get("ROWS") or 10_000), int(os.environ.get("ROUNDS") or 3)
    full: dict[float, Build] = {}
    changed: dict[float, list[Build]] = defaultdict(list)
    work = REPOSITORY / ".tidemark" / "bench"
    work.mkdir(parents=True, exist_ok=True)
    for scale in scales:
        with contextmanager(make_checkout)("embedded", parent=work) as checkout:
            with _CONSOLE.status(f"Loading the shop at scale {scale:g}"):
                _run(checkout, "demo", "load", "--scale", f"{scale:g}", program="tidemark")
                _run(checkout, "run", "tap-postgres", "target-postgres")
            full[scale] = _build(checkout)
            _CONSOLE.print(f"scale {scale:g}, full: {full[scale].seconds:.1f} s")
            for turn in range(rounds):
                checkout.tidemark("demo", "change", "--rows", str(rows), "--seed", str(turn + 1))
                _run(checkout, "run", "tap-postgres", "target-postgres")
                changed[scale].append(_build(checkout))
                _CONSOLE.print(f"scale {scale:g}, {rows:,} rows changed: {changed[scale][-1].seconds:.1f} s")
    _RESULT.write_text(_report(rows, full, changed))
    _CONSOLE.print(f"Written: {_RESULT}")


def _build(checkout: Checkout) -> Build:
    before = checkout.rows("warehouse", "select pg_current_wal_insert_lsn()::text")[0][0]
    began = time.monotonic()
    _run(checkout, "invoke", "dbt-postgres:run")
    seconds = time.monotonic() - began
    wal = checkout.rows("warehouse", f"select (pg_current_wal_insert_lsn() - '{before}')::bigint")[0][0]
    models = {name: (float(took), rows) for name, took, rows in checkout.rows("warehouse", _LATEST)}
    return Build(seconds, wal, models)


def _run(checkout: Checkout, *arguments: str, program: str = "meltano") -> None:
    # not checkout.run, whose timeout is for tests
    run = checkout.start(*arguments, program=program)
    printed, _ = run.communicate()
    if run.returncode:
        sys.exit(f"error: {printed}")


def _report(rows: int, full: dict[float, Build], changed: dict[float, list[Build]]) -> str:
    said = (
        f"The demo shop, loaded and built in full, then built again after each of {len(next(iter(changed.values())))} "
        f"runs of `tidemark demo change --rows {rows}`, by `make bench-transform`, on one machine with "
        f"{os.cpu_count()} cores. Seconds and megabytes of WAL; for the changes, medians. `whole` includes dbt's "
        "start-up, views and snapshots."
    )
    lines = [
        "# What a build of the marts costs",
        "",
        said,
        "",
        "| scale | model | full: s | rows | change: s | rows | change / full |",
        "|---|---|---|---|---|---|---|",
    ]
    for scale, build in full.items():
        for name in sorted(build.models):
            took, written = build.models[name]
            after = statistics.median(each.models[name][0] for each in changed[scale])
            moved = statistics.median(each.models[name][1] for each in changed[scale])
            if took > 0.5:  # noqa: PLR2004 - seconds; the rest are views and small tables
                lines.append(
                    f"| {scale:g} | {name} | {took:.2f} | {written:,} | {after:.2f} | {moved:,.0f} "
                    f"| {after / took:.3f} |"
                )
        whole = statistics.median(each.seconds for each in changed[scale])
        wal = statistics.median(each.wal_bytes for each in changed[scale])
        lines.append(
            f"| {scale:g} | whole | {build.seconds:.1f} | {build.wal_bytes / 1e6:,.0f} MB | {whole:.1f} "
            f"| {wal / 1e6:,.1f} MB | {whole / build.seconds:.3f} |"
        )
    scales = list(full)
    if len(scales) > 1:
        first, last = scales[0], scales[-1]
        lines += ["", f"The same change, time at scale {last:g} divided by time at scale {first:g}:", ""]
        for name in sorted(full[first].models):
            small, large = (
                statistics.median(each.models[name][0] for each in changed[scale]) for scale in (first, last)
            )
            if small > 0.3:  # noqa: PLR2004 - seconds
                lines.append(f"- {name}: {large / small:.2f}")
        small, large = (statistics.median(each.seconds for each in changed[scale]) for scale in (first, last))
        lines.append(f"- whole: {large / small:.2f}")
        small, large = (statistics.median(each.wal_bytes for each in changed[scale]) for scale in (first, last))
        lines.append(f"- WAL of the whole build: {large / small:.2f}")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
