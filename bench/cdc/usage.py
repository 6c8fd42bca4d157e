"""Samples what a tool and the servers use."""

from __future__ import annotations

import os
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import psutil

from bench.cdc.servers import SIDES

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bench.cdc.servers import Servers

_EVERY_S = 0.1


@dataclass(frozen=True)
class Used:
    """Seconds of CPU of the tool and of both servers, and the tool's peak memory."""

    seconds: float
    cpu_s: float
    servers_cpu_s: float
    memory_mb: float


class Usage:
    """Watches the servers from its making until `stop`, and processes with their descendants."""

    def __init__(self, servers: Servers) -> None:
        self._roots: list[int] = []
        self._postmasters = [_postmaster(servers, side) for side in SIDES]
        self._cpu: dict[tuple[int, float], float] = {}
        self.memory_mb: list[float] = []
        self._began, self._before = time.monotonic(), self._servers_cpu()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def watch(self, pids: Sequence[int]) -> None:
        """Watch these processes."""
        self._roots += pids

    def stop(self) -> Used:
        """Return what was used."""
        seconds, servers = time.monotonic() - self._began, self._servers_cpu() - self._before
        self._ended.set()
        self._thread.join()
        self._sample()
        return Used(seconds, sum(self._cpu.values()), servers, max(self.memory_mb, default=0))

    def _watch(self) -> None:
        while not self._ended.wait(_EVERY_S):
            self._sample()

    def _sample(self) -> None:
        memory = 0
        for root in self._roots:
            try:
                process = psutil.Process(root)
                for each in [process, *process.children(recursive=True)]:
                    times = each.cpu_times()
                    self._cpu[each.pid, each.create_time()] = times.user + times.system
                    memory += each.memory_info().rss
            except psutil.Error:
                continue
        if memory:
            self.memory_mb.append(memory / 2**20)

    def _servers_cpu(self) -> float:
        """Return the seconds of all processes of both servers, including those that have ended."""
        total = 0.0
        for postmaster in self._postmasters:
            times = postmaster.cpu_times()
            total += times.user + times.system + times.children_user + times.children_system
            for child in postmaster.children(recursive=True):
                try:
                    used = child.cpu_times()
                except psutil.Error:
                    continue
                total += used.user + used.system
        return total


def _postmaster(servers: Servers, side: str) -> psutil.Process:
    connect = servers.source if side == "source" else servers.warehouse
    with connect() as connection:
        row = connection.execute("show data_directory").fetchone()
        assert row
        with open(os.path.join(row[0], "postmaster.pid"), encoding="utf-8") as file:  # noqa: PTH118, PTH123
            return psutil.Process(int(file.readline()))
