"""Runs some processes together until one signal ends them all, and leaves none behind.

A component that ends by itself is started again, later each time. What a component leaves behind (a scheduler that was
killed leaves its workers) may finish the task it has, and is then ended.
"""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import dataclass, field
from typing import IO, TYPE_CHECKING

import psutil

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from pathlib import Path
    from types import FrameType

_POLL_S = 0.2
# how long all have to end by themselves, the scheduler's tasks too
_STOP_S = 20
_KILL_S = 10
# a component that ends so often, so soon, will not run by being started again
_QUICK_S = 60
_QUICK_ENDS = 5
_LONGEST_DELAY_S = 30
_LOOK_FOR_ORPHANS_EVERY_S = 10
_PR_SET_PDEATHSIG, _PR_SET_CHILD_SUBREAPER = 1, 36
_LINUX = sys.platform == "linux"
_libc = ctypes.CDLL(None) if _LINUX else None


@dataclass
class Component:
    """One process to keep running; its output goes to `log`, which begins anew with the supervisor."""

    name: str
    command: Sequence[str]
    log: Path
    process: subprocess.Popen[bytes] | None = None
    began: float = 0
    due: float = 0
    quick_ends: int = 0
    output: IO[bytes] | None = field(default=None, repr=False)

    def start(self) -> None:
        """Start it, in a session of its own: a terminal's Ctrl-C is for the supervisor."""
        self.output = self.output or self.log.open("wb")
        self.began = time.monotonic()
        self.process = subprocess.Popen(
            self.command,
            stdin=subprocess.DEVNULL,
            stdout=self.output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            # there is one thread here
            preexec_fn=_end_with_parent if _LINUX else None,  # noqa: PLW1509
        )

    def ended(self) -> int | None:
        """Return its status if it has ended by itself, once; and settle when it is due to be started again."""
        if self.process is None or (status := self.process.poll()) is None:
            return None
        self.process = None
        self.quick_ends = self.quick_ends + 1 if time.monotonic() - self.began < _QUICK_S else 1
        self.due = time.monotonic() + min(2**self.quick_ends, _LONGEST_DELAY_S)
        return status


class Supervisor:
    """Runs components until SIGTERM, SIGINT or SIGHUP."""

    def __init__(self, components: Sequence[Component], say: Callable[[str], None]) -> None:
        self._components = components
        self._say = say
        self._stop = False
        self._idle: set[int] = set()
        self._looked = 0.0

    def run(self, *, meanwhile: Callable[[], None]) -> int:
        """Run them; return the status to end with: 0 when told to end.

        Args:
            meanwhile: called again and again; must not take long.
        """
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, self._told)
        if _libc:
            # what a component leaves behind becomes our child, so that we can find it
            _libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
        status = 0
        try:
            for component in self._components:
                component.start()
            while not self._stop:
                if not self._look_after():
                    status = 1
                    break
                meanwhile()
                time.sleep(_POLL_S)
        finally:
            self._end_all()
        return status

    def _told(self, _: int, __: FrameType | None) -> None:
        self._stop = True

    def _look_after(self) -> bool:
        """Start what has ended again, and end what was left behind; return whether there is hope."""
        for component in self._components:
            status = component.ended()
            if status is not None:
                self._say(f"The {component.name} ended with status {status}; see {component.log}.")
                if component.quick_ends >= _QUICK_ENDS:
                    self._say(f"The {component.name} does not stay up, so all is stopped.")
                    return False
            if component.process is None and time.monotonic() >= component.due:
                component.start()
        if time.monotonic() - self._looked > _LOOK_FOR_ORPHANS_EVERY_S:
            self._looked = time.monotonic()
            self._end_orphans()
        return True

    def _end_orphans(self) -> None:
        """End what was left behind and had nothing to do when it was looked at before either."""
        own = {component.process.pid for component in self._components if component.process}
        idle = set()
        for child in psutil.Process().children():
            with suppress(psutil.NoSuchProcess, ChildProcessError):
                if child.pid in own:
                    continue
                if child.status() == psutil.STATUS_ZOMBIE:
                    os.waitpid(child.pid, os.WNOHANG)
                # a worker with a task has the task's process
                elif not child.children():
                    idle.add(child.pid)
                    if child.pid in self._idle:
                        child.terminate()
        self._idle = idle

    def _end_all(self) -> None:
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
        # all, by then: whose parent ends is not found by way of it any more
        everyone = _started()
        # a scheduler that is told to end waits for its tasks, and they for nobody; each once, as Airflow takes a second
        # signal for impatience
        _signal(everyone, signal.SIGTERM)
        _wait(everyone, _STOP_S)
        left = _started()
        _signal(left, signal.SIGKILL)
        _wait(left, _KILL_S)


def _started() -> list[psutil.Process]:
    """Return all that was started; but for database servers, which a task may have started for all to use."""
    found = []
    for process in psutil.Process().children(recursive=True):
        with suppress(psutil.NoSuchProcess):
            if not process.name().startswith("postgres"):
                found.append(process)
    return found


def _signal(processes: Iterable[psutil.Process], number: signal.Signals) -> None:
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            process.send_signal(number)


def _wait(processes: Iterable[psutil.Process], seconds: float) -> None:
    psutil.wait_procs(list(processes), timeout=seconds)


def _end_with_parent() -> None:
    """Have the kernel end this process when the supervisor is gone, however it went."""
    assert _libc
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
