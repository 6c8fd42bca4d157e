"""dbt's own command line, with the lock taken once the profile is known."""

from __future__ import annotations

import os
import signal
import sys
from functools import partial
from typing import TYPE_CHECKING, NoReturn

from dbt.cli import requires
from dbt.cli.main import cli
from dbt.flags import get_flags
from dbt_common.exceptions import DbtBaseException

from tidemark_dbt.lock import BusyError, TransformLock

if TYPE_CHECKING:
    from types import FrameType

    from dbt.config.profile import Profile

# the others only read, or write files
_WRITING = frozenset({"run", "build", "test", "snapshot", "seed", "retry", "clone", "run-operation"})
_load_profile = requires.load_profile
# dbt ends with a status of its own, whatever the error
_status: int | None = None


class Interruption(KeyboardInterrupt, DbtBaseException):
    """Ctrl-C or SIGTERM: dbt cancels its queries for the one kind of error, and prints no traceback for the other."""


def run(*, starter: int | None) -> NoReturn:
    """Run dbt with the arguments of this process; end with its status.

    Args:
        starter: the process without which this one is not to go on.
    """
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _interrupt)
    # dbt calls this once it has read its command line, and before it connects
    requires.load_profile = partial(_load_profile_and_lock, starter)
    try:
        cli(prog_name="dbt")
    except SystemExit:
        if _status is not None:
            sys.exit(_status)
        raise
    sys.exit(0)


def _load_profile_and_lock(starter: int | None, *args: object) -> Profile:
    global _status  # noqa: PLW0603
    profile = _load_profile(*args)
    if get_flags().WHICH in _WRITING and profile.credentials.type == "postgres":
        lock = TransformLock(profile.credentials)
        try:
            lock.take(starter=starter)
        except BusyError:
            _status = os.EX_TEMPFAIL
            raise
        profile.credentials = profile.credentials.replace(application_name=lock.name)
    return profile


def _interrupt(number: int, _: FrameType | None) -> NoReturn:
    global _status  # noqa: PLW0603
    _status = 128 + number
    raise Interruption("Interrupted.")
