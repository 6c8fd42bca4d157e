"""`python -m bench.watched`: the same load with and without logs and metrics. Options: SCALE, ROUNDS (of pairs).

With: Meltano's log file, `tidemark metrics` scraped each 15 s, and `tidemark logs ship` sending to a stand-in of
Elasticsearch. CPU seconds are those of the run and its children, the two servers, the exporter and the shipper.
"""

from __future__ import annotations

import os
import resource
import statistics
import subprocess
import threading
import time
import urllib.request
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

import psutil
from rich.console import Console
from tests.conftest import REPOSITORY
from tests.integration.stages import make_checkout
from tests.monitoring.sink import Sink
from tests.ports import free_port

from bench.report import DIRECTORY

if TYPE_CHECKING:
    from collections.abc import Iterator
    from contextlib import AbstractContextManager

    from tests.integration.checkout import Checkout

_RESULT = DIRECTORY / "watched.md"
_CONSOLE = Console()
_SCRAPE_EVERY_S = 15
_FILE_HANDLER = "handlers: [console, file]"


@dataclass(frozen=True)
class Load:
    """One first load: its seconds by the clock, and of CPU."""

    wall_s: float
    cpu_s: float


def main() -> None:
    """Load in pairs, off and on in turns, and write the medians with their spread."""
    scale, rounds = os.environ.get("SCALE") or "1", int(os.environ.get("ROUNDS") or 7)
    found: dict[bool, list[Load]] = {False: [], True: []}
    with contextmanager(make_checkout)(stage="up") as checkout, Sink() as sink:
        sink.start()
        with _CONSOLE.status(f"Loading the shop at scale {scale}"):
            checkout.tidemark("demo", "load", "--scale", scale)
        _load(checkout, sink, "warm-up", on=True)
        for turn in range(rounds):
            # the order changes with each pair, so that what grows with time falls on both
            for on in (False, True) if turn % 2 == 0 else (True, False):
                found[on].append(_load(checkout, sink, f"{turn}-{on}", on=on))
                _CONSOLE.print(f"pair {turn + 1}, {'on' if on else 'off'}: {found[on][-1]}")
    _RESULT.write_text(_report(scale, found))
    _CONSOLE.print(_RESULT.read_text())


def _load(checkout: Checkout, sink: Sink, name: str, *, on: bool) -> Load:
    """Load everything into an empty schema, with a state of its own."""
    with checkout.connect("warehouse") as connection:
        connection.execute("drop schema if exists raw cascade")
        connection.execute("create schema raw authorization tidemark_loader")
        connection.execute("grant usage on schema raw to tidemark_transformer, tidemark_monitor")
        connection.execute("checkpoint")
    config = checkout.root / "logging.yaml"
    text = config.read_text()
    assert _FILE_HANDLER in text
    if not on:
        config.write_text(text.replace(_FILE_HANDLER, "handlers: [console]"))
    try:
        watching: AbstractContextManager[list[tuple[psutil.Process, float]]] = (
            _watching(checkout, sink) if on else nullcontext([])
        )
        with watching as watchers:
            servers = [_postmaster(checkout, side) for side in ("source", "warehouse")]
            before = sum(map(_cpu, servers))
            children = resource.getrusage(resource.RUSAGE_CHILDREN)
            began = time.monotonic()
            command = [str(checkout.root / ".venv/bin/tidemark"), "run", "tap-postgres", "target-postgres"]
            env = {**checkout.env, "MELTANO_RUN_STATE_ID_SUFFIX": name}
            subprocess.run(command, cwd=checkout.root, env=env, check=True, stdout=subprocess.DEVNULL)
            wall = time.monotonic() - began
            after = resource.getrusage(resource.RUSAGE_CHILDREN)
            # backends count once their server has noticed that they ended
            time.sleep(1)
            cpu = after.ru_utime + after.ru_stime - children.ru_utime - children.ru_stime
            cpu += sum(map(_cpu, servers)) - before
            # the exporter and the shipper have run for this load alone
            cpu += sum(_cpu(each) - begun for each, begun in watchers)
            return Load(round(wall, 2), round(cpu, 2))
    finally:
        config.write_text(text)


@contextmanager
def _watching(checkout: Checkout, sink: Sink) -> Iterator[list[tuple[psutil.Process, float]]]:
    """Run the exporter and the shipper; yield them with the CPU seconds that their starts took."""
    port = free_port()
    stop = threading.Event()

    def scrape() -> None:
        while not stop.is_set():
            with suppress(OSError), urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics") as response:
                response.read()
            stop.wait(_SCRAPE_EVERY_S)

    with (
        checkout.start("metrics", "--port", str(port)) as exporter,
        checkout.start("logs", "ship", env={"TIDEMARK_ELASTICSEARCH_URL": sink.url}) as shipper,
    ):
        assert exporter.stdout
        exporter.stdout.readline()
        # both are services: their start belongs to no load
        time.sleep(3)
        started = [psutil.Process(each.pid) for each in (exporter, shipper)]
        begun = [_cpu(each) for each in started]
        thread = threading.Thread(target=scrape)
        thread.start()
        try:
            yield list(zip(started, begun, strict=True))
        finally:
            stop.set()
            thread.join()
            for each in (exporter, shipper):
                each.terminate()


def _cpu(process: psutil.Process) -> float:
    # user, system, and those of children that have ended
    return float(sum(process.cpu_times()[:4]))


def _postmaster(checkout: Checkout, side: str) -> psutil.Process:
    pid_file = checkout.root / ".tidemark/postgres" / side / "data/postmaster.pid"
    return psutil.Process(int(pid_file.read_text().split()[0]))


def _report(scale: str, found: dict[bool, list[Load]]) -> str:
    def figures(values: list[float]) -> str:
        return f"{statistics.median(values):.2f} ({min(values):.2f} to {max(values):.2f})"

    pairs = list(zip(found[False], found[True], strict=True))
    cpu = [on.cpu_s / off.cpu_s for off, on in pairs]
    wall = [on.wall_s / off.wall_s for off, on in pairs]
    rows = [
        f"| {what} | {figures([getattr(load, field) for load in found[False]])} | "
        f"{figures([getattr(load, field) for load in found[True]])} | {figures(ratios)} |"
        for what, field, ratios in (("CPU, s", "cpu_s", cpu), ("wall, s", "wall_s", wall))
    ]
    return "\n".join(
        [
            "# Loads with logs and metrics, and without",
            "",
            f"First loads of the shop at scale {scale}, {len(pairs)} pairs in turns: `make bench-watched`. With: the",
            "log file, the exporter scraped each 15 s, and the shipper to a stand-in of Elasticsearch. CPU is that of",
            "the run, both servers, the exporter and the shipper. Medians, with the smallest and the largest.",
            "",
            "| | without | with | with / without, by pair |",
            "|---|---|---|---|",
            *rows,
            "",
        ]
    )


if __name__ == "__main__":
    os.chdir(REPOSITORY)
    main()
