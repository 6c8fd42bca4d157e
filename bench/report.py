"""Writes results: results.json has one section per data set, and results.md shows them."""

from __future__ import annotations

import json
import os
import platform
import statistics
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench import data_movement

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.integration.checkout import Checkout

    from bench.measure import Measured
    from bench.peers.base import Peer, Setting

# RESULTS names another directory for a trial run, whose figures mean nothing
DIRECTORY = Path(os.environ.get("RESULTS") or Path(__file__).parent).resolve()
RESULTS = DIRECTORY / "results.json"
KINDS = ("first load", "idle", "1 % changed", "reconcile", "marts", "marts, 1 % changed")
_SERVER_SETTINGS = (
    *("shared_buffers", "fsync", "synchronous_commit", "wal_level", "max_wal_size", "checkpoint_timeout"),
    "autovacuum",
)


@dataclass(frozen=True)
class Compared:
    """A table on both sides after a run: its rows, and a hash of their checksums; None if it is missing."""

    table: str
    source_rows: int | None
    source_hash: str | None
    rows: int | None
    hash: str | None

    @property
    def is_equal(self) -> bool:
        """Whether both sides have the same rows."""
        return (self.rows, self.hash) == (self.source_rows, self.source_hash)


@dataclass
class Section:
    """The results of one data set."""

    title: str
    rows: int
    about: str
    image: str = ""
    """The servers, as `postgres:18.6`."""
    began: str = ""
    """An instant in ISO 8601."""
    peers: dict[str, dict[str, Any]] = field(default_factory=dict)

    @classmethod
    def begin(cls, setting: Setting) -> Section:
        """Return an empty section that describes the machine and the servers."""
        with setting.checkout.connect("warehouse") as connection:
            image = f"postgres:{connection.info.parameter_status('server_version')}"
        began = datetime.now(UTC).isoformat()
        return cls(setting.dataset.title, setting.dataset.rows, about(setting.checkout), image, began)

    def add(self, peer: Peer) -> None:
        """Add a peer."""
        self.peers[peer.name] = {"settings": peer.settings, "runs": {}, "why": None}

    def leave_out(self, peer: Peer, why: str) -> None:
        """Record why a peer has no figures."""
        self.peers.setdefault(peer.name, {"settings": peer.settings, "runs": {}, "why": None})["why"] = why

    def record(self, peer: Peer, kind: str, measured: Measured, *, tables: Sequence[Compared], rows: int = 0) -> None:
        """Record a run and the tables after it; `rows` is how many rows changed before it."""
        right = all(table.is_equal for table in tables)
        run = {**asdict(measured), "right": right, "rows": rows, "tables": [asdict(table) for table in tables]}
        self.peers[peer.name]["runs"].setdefault(kind, []).append(run)

    def save(self) -> None:
        """Write the section, and the tables of all sections."""
        sections = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
        sections[self.title] = asdict(self)
        # atomically: an interruption must not lose the sections of earlier sessions
        scratch = RESULTS.with_suffix(".new")
        DIRECTORY.mkdir(parents=True, exist_ok=True)
        scratch.write_text(json.dumps(sections, indent=1) + "\n")
        scratch.replace(RESULTS)
        RESULTS.with_suffix(".md").write_text(markdown(sections))
        data_movement.write(asdict(self), DIRECTORY / "data-movement")


def about(checkout: Checkout) -> str:
    """Return a sentence about the machine and the servers."""
    with checkout.connect("warehouse") as connection:
        version = str(connection.info.parameter_status("server_version"))
        values = [
            f"{name} {value}"
            for name, value in connection.execute(
                "select name, current_setting(name) from pg_settings where name = any(%s)", [list(_SERVER_SETTINGS)]
            )
        ]
    return (
        f"{datetime.now(UTC):%Y-%m-%d}, {os.cpu_count()} cores ({platform.machine()}), PostgreSQL {version} on "
        f"both sides of one machine; {', '.join(values)}."
    )


def markdown(sections: dict[str, Any]) -> str:
    """Return all results as a page."""
    parts = [
        "# Results of `make bench`\n",
        "The same load through raw COPY, this project and its peers, each with the settings that its documentation",
        "gives for speed. Whole commands are timed, with their start-up, in turns. Seconds are minimum / median /",
        "maximum; CPU seconds are medians, of the commands (clients) and of each server. After each run, rows and",
        "checksums of source and warehouse were compared; wrong runs do not count. `data-movement/` has the first",
        "loads in the format of galaxy-io/benchmarks.\n",
        "![Medians](results.svg)\n",
    ]
    for section in sections.values():
        parts += [f"## {section['title']}\n", f"{section['rows']:,} rows. {section['about']}\n"]
        for kind in KINDS:
            parts += _table(section, kind)
        parts += [f"- **{name}**: {peer['settings']}." for name, peer in section["peers"].items()]
        parts.append("")
    return "\n".join(parts)


def median(peer: dict[str, Any], kind: str) -> float | None:
    """Return a peer's median seconds for a kind of run; None if no run was right."""
    seconds = [run["seconds"] for run in peer["runs"].get(kind, []) if run["right"]]
    return statistics.median(seconds) if seconds else None


def _table(section: dict[str, Any], kind: str) -> list[str]:
    floor = next((median(peer, "first load") for name, peer in section["peers"].items() if name == "raw COPY"), None)
    first = kind == "first load"
    columns = {"first load": 2, "idle": 0}.get(kind, 1)
    lines = [
        f"### {kind[0].upper()}{kind[1:]}\n",
        "| | seconds | runs | "
        + "".join(("rows/s | ", "ratio to raw COPY | ")[:columns])
        + "CPU seconds | peak memory, MB | |",
        "|---|---|---|" + "---|" * columns + "---|---|---|",
    ]
    for name, peer in section["peers"].items():
        runs = peer["runs"].get(kind, [])
        right = [run for run in runs if run["right"]]
        wrong = f"{len(runs) - len(right)} of {len(runs)} wrong" if len(runs) > len(right) else ""
        if not right:
            # name a peer that never ran once, and a peer that failed later wherever it has no figures
            if runs or (peer["why"] and (first or median(peer, "first load"))):
                why = "; ".join(filter(None, [wrong, peer["why"]]))
                lines.append(f"| {name} | | {len(runs)} |" + " |" * columns + f" | | {why} |")
            continue
        seconds = sorted(run["seconds"] for run in right)
        middle = statistics.median(seconds)
        memory = {
            role: max(run["memory_mb"].get(role, 0) for run in right) for run in right for role in run["memory_mb"]
        }
        cpu = {
            part: statistics.median(run["cpu_s"][part] for run in right if part in run["cpu_s"])
            for part in right[0].get("cpu_s", {})
        }
        moved = section["rows"] if first else statistics.median(run.get("rows", 0) for run in right)
        disk = max(run["disk_mb"] for run in right)
        more = [wrong] if wrong else []
        more += [peer["why"]] if peer["why"] else []
        more += [f"chunks at most {disk:.0f} MB"] if disk and first else []
        cells = [
            name,
            f"{seconds[0]:.1f} / {middle:.1f} / {seconds[-1]:.1f}",
            str(len(right)),
            *([f"{moved / middle:,.0f}"] if columns else []),
            *([f"{middle / floor:.2f}" if floor else ""] if first else []),
            ", ".join(f"{part} {value:.1f}" for part, value in cpu.items()),
            ", ".join(f"{role} {value:.0f}" for role, value in memory.items()),
            "; ".join(more),
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return [*lines, ""] if len(lines) > 3 else []  # noqa: PLR2004 - more than the heading's lines
