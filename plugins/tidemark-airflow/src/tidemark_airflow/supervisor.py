"""Runs several processes until one signal ends them all, and leaves none behind.

It restarts a component that ends by itself, with growing delays. A component can leave processes behind: a killed
scheduler leaves its workers. Such a process may finish its task and is then ended.
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
# the time for all processes to end by themselves, including the scheduler's tasks
_STOP_S = 20
_KILL_S = 10
# a component that ends this often, this soon, will not recover by a restart
_QUICK_S = 60
_QUICK_ENDS = 5
_LONGEST_DELAY_S = 30
_LOOK_FOR_ORPHANS_EVERY_S = 10
_PR_SET_PDEATHSIG, _PR_SET_CHILD_SUBREAPER = 1, 36
_LINUX = sys.platform == "linux"
_libc = ctypes.CDLL(None) if _LINUX else None


@dataclass
class Component:
    """A process to keep running. Its output goes to `log`, which is emptied when the supervisor starts."""

    name: str
    command: Sequence[str]
    log: Path
    process: subprocess.Popen[bytes] | None = None
    began: float = 0
    due: float = 0
    quick_ends: int = 0
    output: IO[bytes] | None = field(default=None, repr=False)

    def start(self) -> None:
        """Start it in a new session, so that a terminal's Ctrl-C reaches only the supervisor."""
        self.output = self.output or self.log.open("wb")
        self.began = time.monotonic()
        self.process = subprocess.Popen(
            self.command,
            stdin=subprocess.DEVNULL,
            stdout=self.output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            # safe, because this process has one thread
            preexec_fn=_end_with_parent if _LINUX else None,  # noqa: PLW1509
        )

    def ended(self) -> int | None:
        """Return its status once if it has ended by itself, and schedule its restart."""
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
        # pids of processes that are no orphans, although no component started them
        self.helpers: set[int] = set()
        self._idle: set[int] = set()
        self._looked = 0.0

    def run(self, *, meanwhile: Callable[[], None]) -> int:
        """Run the components; return the exit status, which is 0 if it was told to end.

        Args:
            meanwhile: called repeatedly; must return quickly.
        """
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, self._told)
        if _libc:
            # orphans of a component become children of this process, so that it can find them
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
        """Restart ended components and end orphans; return False if a component keeps ending."""
        for component in self._components:
            status = component.ended()
            if status is not None:
                self._say(f"The {component.name} ended with status {status}; see {component.log}.")
                if component.quick_ends >= _QUICK_ENDS:
                    self._say(f"The {component.name} keeps ending, so everything is stopped.")
                    return False
            if component.process is None and time.monotonic() >= component.due:
                component.start()
        if time.monotonic() - self._looked > _LOOK_FOR_ORPHANS_EVERY_S:
            self._looked = time.monotonic()
            self._end_orphans()
        return True

    def _end_orphans(self) -> None:
        """End orphans that were idle in two checks in a row."""
        own = {component.process.pid for component in self._components if component.process} | self.helpers
        idle = set()
        for child in psutil.Process().children():
            with suppress(psutil.NoSuchProcess, ChildProcessError):
                if child.pid in own:
                    continue
                if child.status() == psutil.STATUS_ZOMBIE:
                    os.waitpid(child.pid, os.WNOHANG)
                # a worker with a task has the task's process as a child
                elif not child.children():
                    idle.add(child.pid)
                    if child.pid in self._idle:
                        child.terminate()
        self._idle = idle

    def _end_all(self) -> None:
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
        # collect all now: a process whose parent ends can no longer be found through it
        everyone = _started()
        # a scheduler that is told to end waits for its tasks, and the tasks wait for nobody. Send one signal to each,
        # because Airflow treats a second one as a request to end at once.
        _signal(everyone, signal.SIGTERM)
        _wait(everyone, _STOP_S)
        left = _started()
        _signal(left, signal.SIGKILL)
        _wait(left, _KILL_S)


def _started() -> list[psutil.Process]:
    """Return all descendants, except database servers, which a task may have started for all to use."""
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
    """Ask the kernel to end this process when the supervisor ends, for whatever reason."""
    assert _libc
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
