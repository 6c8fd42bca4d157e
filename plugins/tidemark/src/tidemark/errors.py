"""What a user can cause. Each error is one line: what was wrong, with which value, and what to do."""

from __future__ import annotations


class TidemarkError(Exception):
    """A failure that its reader can mend. `exit_status` is what the process ends with."""

    exit_status = 1


class BusyError(TidemarkError):
    """Somebody else is doing the same thing; trying again later helps (sysexits' EX_TEMPFAIL)."""

    exit_status = 75


class UnreachableError(TidemarkError):
    """A database does not answer, or not to this user (sysexits' EX_UNAVAILABLE)."""

    exit_status = 69


class UsageError(TidemarkError):
    """A setting or an option has a value that can't be used (sysexits' EX_CONFIG)."""

    exit_status = 78


class Interruption(BaseException):
    """The user or the system asked the process to end.

    Takes KeyboardInterrupt's place, which typer would catch and say nothing of.
    """

    def __init__(self, signal_number: int) -> None:
        """Remember which signal it was."""
        super().__init__(signal_number)
        # the shell's convention
        self.exit_status = 128 + signal_number
