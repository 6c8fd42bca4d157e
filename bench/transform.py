"""`python -m bench.transform`: times builds of the marts, in full and after the same change, beside stock dbt's.

Options: SCALES, ROWS, ROUNDS, and PEERS: which materializations of stock dbt, or none. Each scale is a section of
transform.json, so a scale can be measured alone: `SCALES=20 ROUNDS=1 PEERS=none`.
"""

from __future__ import annotations

import os
import sys
from contextlib import contextmanager
from dataclasses import asdict
from typing import TYPE_CHECKING

from rich.console import Console
from tests.conftest import REPOSITORY
from tests.integration.stages import make_checkout

from bench import report, transform_report
from bench.caches import cool
from bench.dbt_builds import Builder, builders, settle
from bench.missed_rows import Events

if TYPE_CHECKING:
    from tests.integration.checkout import Checkout

_PEERS = ("delete+insert", "merge", "table", "view")
_READ = "explain (analyze, timing off, format json) select *"
_CONSOLE = Console()


class Scale:
    """The measurements at one scale."""

    def __init__(self, checkout: Checkout, scale: float, rows: int, peers: list[str]) -> None:
        self._checkout = checkout
        self._rows = rows
        self._builders = builders(checkout, peers)
        self._changes = 0
        self.section: transform_report.Section = {
            "scale": scale,
            "rows": rows,
            "rounds": 0,
            "cold": "",
            "about": "",
            "cores": os.cpu_count(),
            "builds": {builder.name: {} for builder in self._builders},
            "missed": {},
            "reads": {},
        }

    def load(self) -> None:
        """Load the shop."""
        with _CONSOLE.status(f"Loading the shop at scale {self.section['scale']:g}"):
            _run(self._checkout, "demo", "load", "--scale", f"{self.section['scale']:g}", program="tidemark")
            self._extract_and_load()
        self.section["about"] = report.about(self._checkout)

    def build_in_full(self, *, cold: bool) -> None:
        """Time first builds. This project's comes first, because the peers read its staging."""
        for builder in self._builders:
            builder.drop()
        for builder in self._builders:
            self._build(builder, "full", cold=cold)

    def build_change(self, *, cold: bool) -> None:
        """Change the shop, load that, and time builds of it; who begins changes from time to time."""
        self._change_and_load()
        first = self._changes % len(self._builders)
        for builder in self._builders[first:] + self._builders[:first]:
            self._build(builder, "change", cold=cold)

    def compare(self) -> None:
        """Compare each peer's marts with this project's, also after events that incremental models can miss."""
        for event, missed in Events(self._checkout, self._builders, self._change_and_load).happen():
            self.section["missed"][event] = missed
            _CONSOLE.print(f"{event}: {missed}")

    def read(self) -> None:
        """Time a read of one mart, twice: the second has all pages in memory."""
        for builder in self._builders:
            query = f"{_READ} from {builder.marts}.mart_daily_sales"
            seconds = [self._checkout.rows("warehouse", query)[0][0][0]["Execution Time"] / 1000 for _ in range(2)]
            self.section["reads"][builder.name] = seconds[1]

    def _build(self, builder: Builder, kind: str, *, cold: bool) -> None:
        if cold:
            self.section["cold"] = cool(self._checkout)
        kind = f"{kind}, {'cold' if cold else 'warm'}"
        build = builder.build()
        self.section["builds"][builder.name].setdefault(kind, []).append(asdict(build))
        models = sum(seconds for seconds, _ in build.models.values())
        _CONSOLE.print(
            f"scale {self.section['scale']:g}, {kind}, {builder.name}: {build.wall_s:.1f} s, models {models:.2f} s"
        )

    def _change_and_load(self) -> None:
        self._changes += 1
        self._checkout.tidemark("demo", "change", "--rows", str(self._rows), "--seed", str(self._changes))
        self._extract_and_load()

    def _extract_and_load(self) -> None:
        _run(self._checkout, "run", "tap-postgres", "target-postgres")
        settle(self._checkout)


def main() -> None:
    """Measure at each scale."""
    scales = [float(scale) for scale in (os.environ.get("SCALES") or "1 5").split()]
    rows, rounds = int(os.environ.get("ROWS") or 10_000), int(os.environ.get("ROUNDS") or 3)
    named = os.environ.get("PEERS") or ",".join(_PEERS)
    peers = [] if named == "none" else named.split(",")
    if unknown := set(peers) - set(_PEERS):
        sys.exit(f"error: PEERS names {', '.join(unknown)}; the known ones are {', '.join(_PEERS)}, and none.")
    work = REPOSITORY / ".tidemark" / "bench"
    work.mkdir(parents=True, exist_ok=True)
    for scale in scales:
        with contextmanager(make_checkout)("embedded", parent=work) as checkout:
            measured = Scale(checkout, scale, rows, peers)
            measured.load()
            for cold in (True, False):
                measured.build_in_full(cold=cold)
            for _ in range(rounds):
                for cold in (False, True):
                    measured.build_change(cold=cold)
            measured.section["rounds"] = rounds
            measured.read()
            if peers and scale == scales[0]:
                # what is missed does not depend on the scale
                measured.compare()
            transform_report.save(f"scale {scale:g}", measured.section)


def _run(checkout: Checkout, *arguments: str, program: str = "meltano") -> None:
    # not checkout.run, whose timeout is for tests
    run = checkout.start(*arguments, program=program)
    printed, _ = run.communicate()
    if run.returncode:
        sys.exit(f"error: {printed}")


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(130)
