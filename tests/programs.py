"""Starts programs as separate processes, without the second that their imports take each time.

The process runs the installed program. It can be waited for, frozen and killed. The only difference is that it was
forked from a process with all imports (forks.py). Tests of the start itself start programs as users do.
"""

from __future__ import annotations

import fcntl
import functools
import json
import os
import select
import shlex
import signal
import socket
import subprocess
import tempfile
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import psutil

from tests.conftest import REPOSITORY, alive, shared

if TYPE_CHECKING:
    from collections.abc import Sequence

TAP = REPOSITORY / ".meltano/extractors/tap-postgres/venv/bin/tidemark-tap-postgres"
TARGET = REPOSITORY / ".meltano/loaders/target-postgres/venv/bin/tidemark-target-postgres"
TIDEMARK = REPOSITORY / ".venv/bin/tidemark"
MELTANO = REPOSITORY / ".venv/bin/meltano"
DBT = REPOSITORY / ".meltano/utilities/dbt-postgres/venv/bin/tidemark-dbt"
NAMES = {TAP: "tap", TARGET: "target", TIDEMARK: "tidemark", MELTANO: "meltano", DBT: "dbt"}
WIDTH = "200"
AS_INSTALLED = os.environ.get("TEST_FORKS") == "off"
_TIMEOUT_S = 200


class Process:
    """A running program, with the methods of subprocess.Popen."""

    def __init__(self, caller: socket.socket, stdout: IO[bytes] | None) -> None:
        self._answers = caller.makefile("rb", buffering=0)
        caller.close()
        self.pid = int(self._answers.readline())
        self.stdout = stdout
        self.returncode: int | None = None

    def poll(self) -> int | None:
        if self.returncode is None and select.select([self._answers], [], [], 0)[0]:
            return self.wait()
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        if self.returncode is None:
            if not select.select([self._answers], [], [], timeout)[0]:
                raise subprocess.TimeoutExpired(str(self.pid), timeout or 0)
            with self._answers:
                self.returncode = int(self._answers.readline())
        return self.returncode

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)


@functools.cache
def _forks(program: Path) -> str:
    """Return the address of the process that forks `program`, for all workers of this test run.

    It imports the program at the first request, and ends with the process that started the workers.
    """
    directory = shared() / f"forks-{NAMES[program]}"
    address = str(directory / "socket")
    with directory.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if directory.exists():
            return address
        directory.mkdir()
        with socket.socket(socket.AF_UNIX) as listener, alive().open("rb") as its_end:
            listener.bind(address)
            listener.listen()
            os.set_inheritable(listener.fileno(), True)
            command: list[str] = [str(program.parent / "python"), str(Path(__file__).with_name("forks.py"))]
            command += [NAMES[program], str(listener.fileno()), str(directory)]
            env = {k: v for k, v in os.environ.items() if not k.startswith(("PG", "TAP_", "TARGET_"))}
            # rich reads it when tidemark is imported
            env["COLUMNS"] = WIDTH
            # not a Popen, which would warn that it still runs when this worker ends
            streams = [(os.POSIX_SPAWN_DUP2, its_end.fileno(), 0)]
            os.posix_spawn(command[0], command, env, file_actions=streams)
    return address


def start(  # noqa: PLR0913 - all are keyword arguments
    command: list[Any],
    *,
    stdin: IO[bytes],
    stdout: IO[bytes] | None,
    stderr: IO[bytes],
    patches: Sequence[str] = (),
    cwd: Path | None = None,
    env: dict[str, str] | None = None,
) -> Process | subprocess.Popen[bytes]:
    """Start a program: forked, or as users start it if TEST_FORKS is `off`, which takes a second each.

    Args:
        command: one of the programs above, with its arguments.
        stdout: a pipe by default.
        patches: parts to remove from the program, which works only if it is forked; see forks.py.
    """
    if AS_INSTALLED and not patches:
        env = {"COLUMNS": WIDTH, **(os.environ if env is None else env)}
        out = subprocess.PIPE if stdout is None else stdout
        return subprocess.Popen(command, cwd=cwd, env=env, bufsize=0, stdin=stdin, stdout=out, stderr=stderr)
    caller = socket.socket(socket.AF_UNIX)
    caller.connect(_forks(command[0]))
    reader = None
    writer = stdout
    if writer is None:
        reader, writer = (os.fdopen(end, mode) for end, mode in zip(os.pipe(), ("rb", "wb"), strict=True))
    streams = [stdin.fileno(), writer.fileno(), stderr.fileno()]
    request = [[str(part) for part in command], [*patches], None if cwd is None else str(cwd), env, None]
    socket.send_fds(caller, [f"{json.dumps(request)}\n".encode()], streams)
    if reader:
        writer.close()
    return Process(caller, reader)


def run(
    command: list[Any], *, cwd: Path | None = None, env: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run `command` to its end and return its output; programs that it starts are forked too."""
    if env is not None and not AS_INSTALLED:
        env = {**env, "FORKS": json.dumps(_sockets())}
    with open(os.devnull, "rb") as nothing, tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:  # noqa: PTH123
        process = start(command, stdin=nothing, stdout=out, stderr=err, cwd=cwd, env=env)
        try:
            status = process.wait(timeout=_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            raise
        printed = []
        for each in (out, err):
            each.seek(0)
            printed.append(each.read().decode())
    return subprocess.CompletedProcess(command, status, *printed)


def _sockets() -> dict[str, str]:
    """Return the address for each program by its name. tidemark also starts dbt itself, to install packages."""
    return {each.name: _forks(each) for each in NAMES} | {"dbt": _forks(DBT)}


def script(program: Path) -> str:
    """Return a shell script that has `program`, and the programs that it starts, forked."""
    sockets = json.dumps(_sockets())
    command = [program.with_name("python"), "-IS", Path(__file__).with_name("fork.py"), _forks(program), program]
    return f'#!/bin/sh\nFORKS={shlex.quote(sockets)} exec {shlex.join(map(str, command))} "$@"\n'


def command_line(process: psutil.Process) -> list[str]:
    """Return a process's arguments; an empty list if it has ended."""
    try:
        return process.cmdline()
    except psutil.Error:
        return []
