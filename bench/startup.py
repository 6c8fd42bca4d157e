"""`python -m bench.startup`: what an idle `meltano run` spends its time on, process by process and import by import.

Option: ROUNDS. Python itself reports the time of each import (`-X importtime`); here it is summed up by package.
"""

from __future__ import annotations

import os
import re
import statistics
import subprocess
import time
from collections import Counter, defaultdict
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

import psutil
from rich.console import Console
from tests.conftest import REPOSITORY
from tests.integration.stages import make_checkout

from bench import data
from bench.peers.base import Setting
from bench.peers.tidemark import Tidemark
from bench.report import DIRECTORY, about

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

_RESULT = DIRECTORY / "startup.md"
_CONSOLE = Console()
_EVERY_S = 0.01
_PACKAGES = 12
_PROGRAMS = ("meltano", "tap-postgres", "target-postgres")
_IMPORT = re.compile(r"import time:\s+(?P<own_us>\d+) \|\s+\d+ \| \s*(?P<module>\S+)")

_WARM = (
    "## Why no process stays",
    "",
    "Meltano reads its project, its settings and the state in each run. A process that kept them, to save its",
    "start, would have to notice each change of a file, a variable or a state that another run writes: a second",
    "truth beside the files. LOG_BASED streams need no start: `tidemark follow` keeps tap and target, and changes are",
    "in the warehouse some seconds later ([figures](cdc.md)).",
)

Imports = dict[str, Counter[str]]
"""Microseconds by program and package."""


def main() -> None:
    """Run without changes, in turns with and without the times of imports, and write where the time went."""
    rounds = int(os.environ.get("ROUNDS") or 5)
    work = REPOSITORY / ".tidemark" / "bench"
    work.mkdir(parents=True, exist_ok=True)
    with contextmanager(make_checkout)("embedded", parent=work) as checkout:
        checkout.tidemark("up")
        with _CONSOLE.status("Making the data, and loading it"):
            dataset = data.prepare(checkout, scale=0.01, tpch=None, work=work)
            peer = Tidemark(Setting(checkout, dataset, work, work / "log"))
            peer.load()
        sentence = about(checkout)
        wall: list[float] = []
        cpu: dict[str, list[float]] = defaultdict(list)
        imports: list[Imports] = []
        for turn in range(rounds):
            seconds, of_programs = _run(peer)
            wall.append(seconds)
            for name, used in of_programs.items():
                cpu[name].append(used)
            imports.append(_imports(peer))
            _CONSOLE.print(f"round {turn + 1} of {rounds}: {seconds:.1f} s")
    _RESULT.write_text(_page(sentence, wall, cpu, imports))
    _CONSOLE.print(_RESULT.read_text())


def _command(peer: Tidemark) -> tuple[list[str], Path]:
    root = peer.setting.checkout.root
    return [str(root / ".venv/bin/meltano"), "run", "--no-install", "tap-postgres", "target-postgres"], root


def _run(peer: Tidemark) -> tuple[float, Mapping[str, float]]:
    """Return an idle run's seconds, and the CPU seconds of each program with all its processes."""
    arguments, root = _command(peer)
    with peer.setting.log.open("ab") as log:
        began = time.monotonic()
        process = subprocess.Popen(arguments, cwd=root, env=peer.environment(), stdout=log, stderr=log)
        used = programs_cpu_s(process)
        seconds = time.monotonic() - began
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, arguments)
    return seconds, used


def programs_cpu_s(run: subprocess.Popen[Any]) -> dict[str, float]:
    """Wait for the end of a run; return the CPU seconds of each program with all its processes."""
    used: dict[int, tuple[str, float]] = {}
    me = psutil.Process(run.pid)
    while run.poll() is None:
        children = []
        with suppress(psutil.Error):
            children = me.children(recursive=True)
        for each in (me, *children):
            with suppress(psutil.Error):
                # a process that has ended, and that its parent has not seen to yet, has no command
                if command := " ".join(each.cmdline()[:2]):
                    name = next((name for name in _PROGRAMS[1:] if name in command), "meltano")
                    times = each.cpu_times()
                    used[each.pid] = (name, times.user + times.system)
        time.sleep(_EVERY_S)
    return {name: sum(cpu_s for owner, cpu_s in used.values() if owner == name) for name in _PROGRAMS}


def _imports(peer: Tidemark) -> Imports:
    """Return what each program's imports took in an idle run."""
    command, root = _command(peer)
    env = {**peer.environment(), "PYTHONPROFILEIMPORTTIME": "1"}
    # tap's and target's lines come through Meltano's log, with their names
    said = subprocess.run(command, cwd=root, env=env, capture_output=True, text=True, check=True).stderr
    found: Imports = {name: Counter() for name in _PROGRAMS}
    for line in said.splitlines():
        if match := _IMPORT.search(line):
            name = next((name for name in _PROGRAMS[1:] if name in line[: match.start()]), "meltano")
            found[name][match["module"].partition(".")[0]] += int(match["own_us"])
    return found


def _page(sentence: str, wall: list[float], cpu: Mapping[str, list[float]], imports: list[Imports]) -> str:
    lines = [
        "# What an idle run spends",
        "",
        f"`make bench-startup`. {sentence} Medians of {len(wall)} runs of `meltano run tap-postgres target-postgres`",
        "without changes, in turns with as many whose imports Python timed (`-X importtime`, which makes them slower).",
        "",
        f"A run takes {statistics.median(wall):.2f} s ({min(wall):.2f} to {max(wall):.2f}).",
        "Tap and target run beside each other, after Meltano has started.",
        "",
        "| | CPU seconds | of these, imports |",
        "|---|---|---|",
    ]
    lines += [
        f"| {name} | {statistics.median(cpu[name]):.2f} | "
        f"{statistics.median(sum(each[name].values()) for each in imports) / 1e6:.2f} |"
        for name in _PROGRAMS
    ]
    for name in _PROGRAMS:
        packages = {package for each in imports for package in each[name]}
        of = {package: statistics.median(each[name][package] for each in imports) / 1e3 for package in packages}
        largest = sorted(of, key=lambda package: -of[package])[:_PACKAGES]
        rest = sum(of.values()) - sum(of[package] for package in largest)
        lines += ["", f"## Imports of {name}", "", "| package | ms |", "|---|---|"]
        lines += [f"| {package} | {of[package]:.0f} |" for package in largest]
        lines += [f"| {len(packages) - len(largest)} others | {rest:.0f} |"]
    lines += ["", *_WARM]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
