"""Errors that a user can fix. Each message is one line."""

from __future__ import annotations

import os


class SingerPostgresError(Exception):
    """The message says what was wrong, names the value, and says what to do."""

    status = 1
    """The exit status of a program that ends with this error."""


class RunError(SingerPostgresError):
    """An error that ends the whole run, whichever stream it came from."""


class BusyError(RunError):
    """Another run is active. This run can be retried later."""

    status = os.EX_TEMPFAIL


def one_line(error: object) -> str:
    """Return an error's message on one line, or the name of its class if the message is empty."""
    return " ".join(str(error).split()) or type(error).__name__
