"""Runs `tidemark` as a child process and hands on what it says; when it is over, nothing that it started is left."""

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
    """A `tidemark … --json` under way.

    Attributes:
        report: what it printed last of all, if it came to that.
        complaint: the last line that was no JSON: how it says what is wrong.
    """

    def __init__(self, child: subprocess.Popen[str]) -> None:
        self._child = child
        self.report: dict[str, Any] | None = None
        self.complaint = ""

    def lines(self) -> Iterator[tuple[str, str]]:
        """Yield each line as its level and text, until the process has ended."""
        assert self._child.stdout
        for line in self._child.stdout:
            if not line.strip():
                continue
            fields = _json(line)
            if "report" in fields:
                self.report = fields["report"]
            elif "text" in fields:
                yield fields.get("level", "info"), fields["text"]
            else:
                self.complaint = line.strip()
                yield "error", self.complaint

    @property
    def status(self) -> int:
        """What it ended with."""
        return self._child.wait()

    def stop(self) -> None:
        """Tell it to end; its lines end when it has."""
        if self._child.poll() is None:
            self._child.terminate()


@contextmanager
def run(root: Path, arguments: Sequence[str], env: Mapping[str, str]) -> Iterator[Run]:
    """Start it and yield it; on leaving, however that is, it has ended, and all that it started."""
    command, *options = arguments
    child = subprocess.Popen(
        [str(root / ".venv" / "bin" / "tidemark"), command, "--json", "--attended", *options],
        cwd=root,
        env={**os.environ, **env, "MELTANO_PROJECT_ROOT": str(root)},
        # it closes with us, however we end, and the child with it
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
        # reads on, as a child that writes into a full pipe doesn't end
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
