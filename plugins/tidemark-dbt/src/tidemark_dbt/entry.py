"""Where the process starts: dbt's own command line, with the lock taken once the profile is known."""

from __future__ import annotations

import os
import signal
import sys
from typing import TYPE_CHECKING, NoReturn

from dbt.cli import requires
from dbt.cli.main import cli
from dbt.flags import get_flags

from tidemark_dbt.interruption import Interruption
from tidemark_dbt.lock import BusyError, TransformLock

if TYPE_CHECKING:
    from types import FrameType

    from dbt.config.profile import Profile

# the others only read, or write files
_WRITING = frozenset({"run", "build", "test", "snapshot", "seed", "retry", "clone", "run-operation"})
_load_profile = requires.load_profile
_busy = False
_signal = 0


def main() -> NoReturn:
    """Run dbt."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _interrupt)
    # dbt calls this once it has read its command line, and before it connects
    requires.load_profile = _load_profile_and_lock
    try:
        cli(prog_name="dbt")
    except SystemExit:
        if _busy:
            sys.exit(os.EX_TEMPFAIL)
        if _signal:
            sys.exit(128 + _signal)
        raise
    sys.exit(0)


def _load_profile_and_lock(*args: object) -> Profile:
    global _busy  # noqa: PLW0603 - dbt turns every error into a status of its own
    profile = _load_profile(*args)
    if get_flags().WHICH in _WRITING and profile.credentials.type == "postgres":
        lock = TransformLock(profile.credentials)
        try:
            lock.take()
        except BusyError:
            _busy = True
            raise
        profile.credentials = profile.credentials.replace(application_name=lock.name)
    return profile


def _interrupt(number: int, _: FrameType | None) -> NoReturn:
    global _signal  # noqa: PLW0603
    _signal = number
    raise Interruption("Interrupted.")
