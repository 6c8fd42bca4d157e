"""Runs `tidemark` as a child process and passes on its output. Afterwards none of its descendants is left."""

from __future__ import annotations

import json
import os
import subprocess
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

import psutil

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

_STOP_S = 20
_KILL_S = 10


class Run:
    """A running `tidemark … --json`.

    Attributes:
        report: the report that it printed at the end, if it did.
        error: the error that ended it: `code`, `transient`, `hint` and `message`.
    """

    def __init__(self, child: subprocess.Popen[str]) -> None:
        self._child = child
        self.report: dict[str, Any] | None = None
        self.error: dict[str, Any] | None = None

    def lines(self) -> Iterator[tuple[str, str]]:
        """Yield each line's level and text until the process has ended."""
        assert self._child.stdout
        for line in self._child.stdout:
            if not line.strip():
                continue
            fields = _json(line)
            if "report" in fields:
                self.report = fields["report"]
            elif "error" in fields:
                self.error = fields["error"]
            elif "text" in fields:
                yield fields.get("level", "info"), fields["text"]
            else:
                yield "error", line.strip()

    @property
    def status(self) -> int:
        """The exit status."""
        return self._child.wait()

    def stop(self) -> None:
        """Tell the process to end; lines() ends after it has."""
        if self._child.poll() is None:
            self._child.terminate()


@contextmanager
def run(root: Path, arguments: Sequence[str], env: Mapping[str, str]) -> Iterator[Run]:
    """Start the command and yield it; on leaving, end it and everything that it started."""
    command, *options = arguments
    child = subprocess.Popen(
        [str(root / ".venv" / "bin" / "tidemark"), command, "--json", "--attended", *options],
        cwd=root,
        env={**os.environ, **env, "MELTANO_PROJECT_ROOT": str(root)},
        # it closes when this process ends, however that happens, and then the child ends
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    )
    try:
        yield Run(child)
    finally:
        _end(child)


def _end(child: subprocess.Popen[str]) -> None:
    started: list[psutil.Process] = []
    with suppress(psutil.NoSuchProcess):
        started = psutil.Process(child.pid).children(recursive=True)
    if child.poll() is None:
        child.terminate()
    with suppress(subprocess.TimeoutExpired):
        # keep reading, because a child that writes into a full pipe does not end
        child.communicate(timeout=_STOP_S)
    for process in started:
        with suppress(psutil.NoSuchProcess):
            process.kill()
    child.kill()
    child.wait()
    psutil.wait_procs(started, timeout=_KILL_S)


def _json(line: str) -> dict[str, Any]:
    try:
        fields = json.loads(line)
    except ValueError:
        return {}
    return fields if isinstance(fields, dict) else {}
