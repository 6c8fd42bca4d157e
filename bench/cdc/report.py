"""Writes cdc.json, and cdc.md from it."""

from __future__ import annotations

import json
import statistics
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from bench.cdc.differences import Differences
from bench.report import DIRECTORY

if TYPE_CHECKING:
    from bench.cdc.peers.base import Peer

RESULTS = DIRECTORY / "cdc.json"
_LEFT_OUT = """
Not among them:

- **sling**: its change-capture needs a paid token (CLI Pro Max), and the newest program on PyPI, 1.4.11, is older than
  that mode.
- **ingestr**: its package on PyPI, 1.1.76, gets the program from GitHub at its first start; the Python versions before
  1.0 have no change data capture.
- **Debezium, PeerDB, Airbyte**: they are services in containers of their own, with Kafka, Temporal or object storage.
"""


@dataclass
class Race:
    """What each tool did in each round; all of them loaded the same backlogs."""

    rows: int
    about: str
    peers: dict[str, dict[str, Any]] = field(default_factory=dict)

    def add(self, peer: Peer) -> None:
        """Add a tool."""
        self.peers[peer.name] = {"settings": peer.settings, "runs": [], "large": None, "why": None}

    def leave_out(self, peer: Peer, why: str) -> None:
        """Record why a tool has no figures, or no further ones."""
        self.peers[peer.name]["why"] = why

    def goes_on(self, peer: Peer) -> bool:
        """Say whether a tool has not failed."""
        return self.peers[peer.name]["why"] is None

    def record(self, peer: Peer, run: dict[str, Any], *, timed: bool) -> None:
        """Record a round, or the one with large values, which is only compared."""
        if timed:
            self.peers[peer.name]["runs"].append(run)
        else:
            self.peers[peer.name]["large"] = run


@dataclass
class Results:
    """All figures of a session. A part that was not measured is None."""

    rows: int
    about: str
    decoded: dict[str, Any] | None = None
    backlog: dict[str, Any] | None = None
    while_writing: dict[str, Any] | None = None
    followed: dict[str, Any] | None = None
    race: Race | None = None

    def save(self) -> None:
        """Write both files. Of what was not measured, the earlier figures stay, with their own date."""
        results = asdict(self)
        earlier = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
        for part in ("followed", "race"):
            if results[part] is None:
                results[part] = earlier.get(part)
        RESULTS.write_text(json.dumps(results, indent=1) + "\n")
        RESULTS.with_suffix(".md").write_text(page(results))


def page(results: dict[str, Any]) -> str:
    """Return the results as a page."""
    parts = [
        "# Following the log\n",
        "Figures of `make bench-cdc`: random rows are updated in transactions of 100, and tap and target load that.\n",
        f"A table of {results['rows']:,} rows with 8 columns. {results['about']}\n",
        "| | changes/s | changes | seconds | CPU of tap and target, s | CPU of both servers, s | peak memory, MB |",
        "|---|---|---|---|---|---|---|",
    ]
    if decoded := results["decoded"]:
        cpu = decoded["changes"] * decoded["cpu_us_per_change"] / 1e6
        parts.append(_row("decoding alone, into files that nobody loads", decoded, [f"{cpu:.1f}", "", ""]))
    measured = {"backlog": "a backlog", "while_writing": "a backlog, while a writer writes too"}
    for name, what in measured.items():
        if run := results[name]:
            cells = [f"{run['cpu_s']:.1f}", f"{run['servers_cpu_s']:.1f}", f"{run['memory_mb']:.0f}"]
            parts.append(_row(what, run, cells))
    parts.append("\nSeconds are from the start of both programs to their end.\n")
    if results["followed"]:
        parts += _followed(results["followed"])
    if results["race"]:
        parts += _race(results["race"])
    return "\n".join(parts).rstrip() + "\n"


def _row(what: str, run: dict[str, Any], more: list[str]) -> str:
    rate = run["changes"] / run["seconds"]
    return "| " + " | ".join([what, f"{rate:,.0f}", f"{run['changes']:,.0f}", f"{run['seconds']:.1f}", *more]) + " |"


def _followed(run: dict[str, Any]) -> list[str]:
    flush, worst = run["rate"], run["worst"]
    lines = [
        f"## Following {flush:,} changes/s for {run['seconds']:,.0f} s\n",
        f"On {run['on']}, from a commit in the source until another session sees its row in the warehouse:\n",
        "| | seconds | meanwhile (of the samples) |",
        "|---|---|---|",
        f"| p50 | {run['p50']:.1f} | {run['usually']} |",
        f"| p95 | {run['p95']:.1f} | |",
        *(f"| worst, at {each['at_s']:.0f} s | {each['seconds']:.1f} | {each['meanwhile']} |" for each in worst),
        "",
        (
            f"Tap and target take {run['cpu_s'] / run['seconds']:.0%} of a core, both servers with the writers "
            f"{run['servers_cpu_s'] / run['seconds']:.0%}. In ten parts of that time, one after the other:\n"
        ),
        "| at most | " + " | ".join(str(number + 1) for number in range(len(run["memory_mb"]))) + " |",
        "|---|" + "---|" * len(run["memory_mb"]),
        "| memory of tap and target, MB | " + " | ".join(f"{value:.0f}" for value in run["memory_mb"]) + " |",
    ]
    retained = run["retained_mb"] + [0.0] * (len(run["memory_mb"]) - len(run["retained_mb"]))
    lines.append("| log that the slot holds, MB | " + " | ".join(f"{value:.1f}" for value in retained) + " |")
    return [*lines, ""]


def _race(race: dict[str, Any]) -> list[str]:
    timed = {name: peer for name, peer in race["peers"].items() if peer["runs"]}
    large = (
        "From the start of the tool until the last change is in its table, minimum / median / maximum; afterwards all "
        "rows are compared with the source. In the end, values of 3 kB are written into a ninth column of each "
        "hundredth row, and other columns of these rows are updated, so that the log says of the large value "
        "only that it did not change.\n"
    )
    columns = ("changes/s", "seconds", "runs", "CPU of the tool, s", "CPU of both servers, s", "peak memory, MB")
    lines = [
        "## Beside other tools\n",
        f"A table of {race['rows']:,} rows. All tools load the same backlogs, in turns. {race['about']}\n",
        large,
        f"| | {' | '.join(columns)} | rows that differ | with large values |",
        "|---|---|---|---|---|---|---|---|---|",
        *(_peer(name, peer) for name, peer in timed.items()),
        "",
        *(f"- **{name}**: {peer['settings']}." for name, peer in timed.items()),
        _LEFT_OUT.rstrip(),
        *(f"- **{name}**: {peer['why']}" for name, peer in race["peers"].items() if name not in timed and peer["why"]),
    ]
    return [*lines, ""]


def _peer(name: str, peer: dict[str, Any]) -> str:
    runs = peer["runs"]
    seconds = sorted(run["seconds"] for run in runs)
    rate = statistics.median(run["changes"] / run["seconds"] for run in runs)
    differ = str(Differences(**runs[-1]["differences"])) or "none"
    large = str(Differences(**peer["large"]["differences"])) or "none differs" if peer["large"] else peer["why"] or ""
    cells = [
        name,
        f"{rate:,.0f}",
        f"{seconds[0]:.1f} / {statistics.median(seconds):.1f} / {seconds[-1]:.1f}",
        str(len(runs)),
        f"{statistics.median(run['cpu_s'] for run in runs):.1f}",
        f"{statistics.median(run['servers_cpu_s'] for run in runs):.1f}",
        f"{max(run['memory_mb'] for run in runs):.0f}",
        differ,
        large.replace("|", "/"),
    ]
    return "| " + " | ".join(cells) + " |"
