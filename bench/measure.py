"""Runs one command and measures its whole process tree."""

from __future__ import annotations

import os
import re
import resource
import subprocess
import threading
import time
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import psutil

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

_EVERY_S = 0.05
_TIMEOUT_S = 3600
_PATIENCE_S = 10
_SETTLE_S = 1.0
_TELLING = re.compile(r"error|exception|failed|fatal", re.IGNORECASE)
# the name of a process in the results, by a word of its command line
_ROLES = {
    # must come first, because its arguments name the others
    "bin/meltano": "meltano",
    "bin/target-postgres": "target",
    "bin/tidemark-target-postgres": "target",
    "bin/tap-postgres": "tap",
    "bin/tidemark-tap-postgres": "tap",
    "dlt_load.py": "dlt",
    "sling": "sling",
    "pgcopydb": "pgcopydb",
    "psql": "psql",
}


@dataclass
class Measured:
    """What a command took.

    Attributes:
        seconds: from its start to its end.
        memory_mb: the peak of each kind of process.
        disk_mb: the peak of a directory's size.
        cpu_s: seconds of CPU time: of the command's `clients`, and of the servers.
    """

    seconds: float
    memory_mb: dict[str, float] = field(default_factory=dict)
    disk_mb: float = 0
    cpu_s: dict[str, float] = field(default_factory=dict)


class CommandFailedError(Exception):
    """A command failed. The message is the command's last error line."""


def run(
    *pipes: Sequence[Sequence[str]],
    env: Mapping[str, str],
    cwd: Path,
    log: Path,
    disk: Path | None = None,
    servers: Mapping[str, int] | None = None,
) -> Measured:
    """Run several pipes of commands, one after the other, as one measurement.

    Args:
        pipes: each a list of commands, each piped into the next.
        disk: a directory whose size is measured.
        servers: the main process of each server whose CPU time is measured.

    Raises:
        CommandFailedError: a command failed.
    """
    result = Measured(0)
    done = threading.Event()
    watcher = threading.Thread(target=_watch, args=(result, disk, done), daemon=True)
    watcher.start()
    # a session that has just been closed counts once it has ended
    time.sleep(_SETTLE_S)
    before = _cpu_s(servers or {})
    began = time.monotonic()
    try:
        for commands in pipes:
            _pipe(commands, env, cwd, log)
    finally:
        result.seconds = time.monotonic() - began
        result.cpu_s = {name: after - before[name] for name, after in _cpu_s(servers or {}).items()}
        done.set()
        watcher.join()
    return result


def _cpu_s(servers: Mapping[str, int]) -> dict[str, float]:
    """Return the CPU seconds so far of all ended children of this process, and of each server."""
    ended = resource.getrusage(resource.RUSAGE_CHILDREN)
    seconds = {"clients": ended.ru_utime + ended.ru_stime}
    for name, pid in servers.items():
        main = psutil.Process(pid)
        # a server's ended processes count as its children's time
        times = [main.cpu_times()]
        seconds[name] = times[0].children_user + times[0].children_system
        for child in main.children():
            with suppress(psutil.NoSuchProcess):
                times.append(child.cpu_times())
        seconds[name] += sum(each.user + each.system for each in times)
    return seconds


def _pipe(commands: Sequence[Sequence[str]], env: Mapping[str, str], cwd: Path, log: Path) -> None:
    processes: list[subprocess.Popen[bytes]] = []
    with log.open("ab") as sink:
        # earlier output in the log does not explain this failure
        start = sink.seek(0, os.SEEK_END)
        try:
            for command in commands:
                before = processes[-1].stdout if processes else subprocess.DEVNULL
                last = len(processes) == len(commands) - 1
                processes.append(
                    subprocess.Popen(
                        command,
                        stdin=before,
                        stdout=sink if last else subprocess.PIPE,
                        stderr=sink,
                        env=env,
                        cwd=cwd,
                        # a failing pgcopydb interrupts its whole process group, which must not be ours
                        start_new_session=True,
                    )
                )
                if len(processes) > 1 and processes[-2].stdout:
                    processes[-2].stdout.close()
            statuses = [process.wait(timeout=_TIMEOUT_S) for process in processes]
        except BaseException:
            _end(processes)
            raise
    if any(statuses):
        lines = log.read_bytes()[start:].decode(errors="replace").strip().splitlines()
        # a hint may follow the error
        telling = [line for line in lines if _TELLING.search(line)] or lines
        raise CommandFailedError(telling[-1] if telling else f"status {statuses}")


def _end(processes: Sequence[subprocess.Popen[bytes]]) -> None:
    """End commands and all their descendants. Some may already have ended."""
    tree: list[psutil.Process] = []
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            # after wait() the process is gone, and its pid may belong to another
            if process.returncode is None:
                root = psutil.Process(process.pid)
                tree += [*root.children(recursive=True), root]
    for each in tree:
        with suppress(psutil.NoSuchProcess):
            each.terminate()
    for each in psutil.wait_procs(tree, timeout=_PATIENCE_S)[1]:
        with suppress(psutil.NoSuchProcess):
            each.kill()


def _watch(result: Measured, disk: Path | None, done: threading.Event) -> None:
    me = psutil.Process()
    while not done.wait(_EVERY_S):
        for process in me.children(recursive=True):
            try:
                command, memory = " ".join(process.cmdline()), process.memory_info().rss / 2**20
            except psutil.Error:
                continue
            role = next((role for word, role in _ROLES.items() if word in command), None)
            if role:
                result.memory_mb[role] = max(result.memory_mb.get(role, 0), memory)
        if disk:
            result.disk_mb = max(result.disk_mb, _size(disk) / 2**20)


def _size(directory: Path) -> int:
    size = 0
    for path in directory.rglob("*"):
        try:
            size += path.stat().st_size if path.is_file() else 0
        except FileNotFoundError:
            continue
    return size
