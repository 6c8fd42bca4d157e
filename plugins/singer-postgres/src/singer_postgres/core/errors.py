"""What a user can put right, told in one line."""

from __future__ import annotations

import os


class SingerPostgresError(Exception):
    """The message says what was wrong, the value, and what to do."""

    status = 1
    """The exit status of a program that ends so."""


class RunError(SingerPostgresError):
    """Ends the whole run, whichever of its streams met it."""


class BusyError(RunError):
    """Another run is at work; this one may be tried again."""

    status = os.EX_TEMPFAIL


def one_line(error: object) -> str:
    """Return what an error says, on one line; its class's name if it says nothing."""
    return " ".join(str(error).split()) or type(error).__name__
