"""Writes first loads in the JSON format of galaxy-io/benchmarks (`data-movement`), for comparisons with its figures.

Source: `harness/result.go` of that repository. Theirs counts rows; here each table also has a hash of its checksums.
"""

from __future__ import annotations

import json
import os
import platform
import re
import statistics
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

_KIND = "first load"
_ROLES = {"source": "source", "warehouse": "sink"}


def write(section: dict[str, Any], directory: Path) -> None:
    """Write a file for each peer that finished a first load."""
    for name, peer in section["peers"].items():
        runs = peer["runs"].get(_KIND, [])
        if runs:
            directory.mkdir(parents=True, exist_ok=True)
            path = directory / f"{_name(section['title'])}-{_name(name)}.json"
            path.write_text(json.dumps(_result(section, name, peer, runs), indent=1) + "\n")


def _name(text: str) -> str:
    """Return a text as part of a file's name."""
    return re.sub(r"[^a-z0-9.]+", "-", text.lower()).strip("-")


def _result(section: dict[str, Any], name: str, peer: dict[str, Any], runs: list[dict[str, Any]]) -> dict[str, Any]:
    repetitions = [_repetition(run, section["rows"], _name(name)) for run in runs]
    seconds = [each["wallSeconds"] for each in repetitions]
    return {
        "sut": _name(name),
        "scenario": "full-load",
        "route": "pg-pg",
        "dataset": _name(section["title"]),
        "rows": section["rows"],
        "image": section["image"],
        "native": name == "raw COPY",
        "config": {"settings": peer["settings"]},
        "startedAt": section["began"],
        "reps": repetitions,
        "medianWallSeconds": statistics.median(seconds),
        "minWallSeconds": min(seconds),
        "maxWallSeconds": max(seconds),
        "medianRowsPerSec": statistics.median(each["rowsPerSec"] for each in repetitions),
        "parityPass": all(each["parityPass"] for each in repetitions),
        "os": platform.system().lower(),
        "arch": {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), platform.machine()),
        "cpus": os.cpu_count(),
    }


def _repetition(run: dict[str, Any], rows: int, name: str) -> dict[str, Any]:
    peak = {name: sum(run["memory_mb"].values()) * 2**20}
    return {
        "setupSeconds": 0,
        "wallSeconds": run["seconds"],
        "rowsPerSec": rows / run["seconds"],
        "resources": [
            {"role": _ROLES.get(part, name), "cpuSeconds": seconds, "peakMemBytes": round(peak.get(part, 0))}
            for part, seconds in ((name if part == "clients" else part, s) for part, s in run["cpu_s"].items())
        ],
        "parity": [
            {
                "table": each["table"],
                "source": each["source_rows"],
                "sink": -1 if each["rows"] is None else each["rows"],
                "sourceHash": each["source_hash"],
                "sinkHash": each["hash"],
                "match": (each["rows"], each["hash"]) == (each["source_rows"], each["source_hash"]),
            }
            for each in run["tables"]
        ],
        "parityPass": run["right"],
    }
