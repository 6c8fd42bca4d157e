"""Errors that a user can cause. Each message is one line: what was wrong, the value, and what to do.

As in singer_postgres.core.errors, a class's code names the kind of error for logs, reports, alerts and the runbook.
"""

from __future__ import annotations

import os

from singer_postgres.core import errors
from singer_postgres.core.errors import CodedError


class TidemarkError(CodedError):
    """A command can't do what the user asked for."""

    code = "command_failed"
    cure = "The message says what to do."


class BusyError(TidemarkError):
    """Another process is doing the same thing. A later try may succeed."""

    code = errors.BusyError.code
    cure = errors.BusyError.cure
    section = errors.BusyError.section
    status = os.EX_TEMPFAIL


class UnreachableError(TidemarkError):
    """A database does not answer, or refuses this role."""

    code = "database_unreachable"
    cure = "`tidemark status` shows both databases and what each says."
    section = "unreachable"
    status = os.EX_UNAVAILABLE


class SourceUnreachableError(UnreachableError):
    """The source does not answer, or refuses this role."""

    code = errors.SourceUnreachableError.code


class WarehouseUnreachableError(UnreachableError):
    """The warehouse does not answer, or refuses this role."""

    code = errors.WarehouseUnreachableError.code


class UsageError(TidemarkError):
    """A setting or an option has a value that can't be used."""

    code = errors.SettingInvalidError.code
    transient = False
    cure = errors.SettingInvalidError.cure
    section = errors.SettingInvalidError.section
    status = os.EX_CONFIG


class RowsDifferError(TidemarkError):
    """Source and warehouse were compared, and rows differ."""

    code = "rows_differ"
    transient = False
    cure = "`tidemark reconcile STREAM` counts them, with --repair it makes them equal."
    section = "reconcile"


class SlotWalError(TidemarkError):
    """The source keeps more WAL for a replication slot than `max_slot_wal_mb` allows."""

    code = errors.SlotWalError.code
    cure = errors.SlotWalError.cure
    section = errors.SlotWalError.section


class BackupError(TidemarkError):
    """A backup could not be made, verified, drilled or restored."""

    code = "backup_failed"
    cure = "The message says what to do; `tidemark backup list` shows what there is."
    section = "backup"


class LogsUndeliveredError(TidemarkError):
    """Log lines could not be sent to Elasticsearch."""

    code = "logs_undelivered"
    cure = "Nothing is lost: the files keep the lines. The message says what Elasticsearch answers."
    section = "unreachable"
    status = os.EX_TEMPFAIL


class Interruption(BaseException):
    """The user or the system asked the process to end.

    This replaces KeyboardInterrupt, which typer would catch without a message.
    """

    def __init__(self, signal_number: int) -> None:
        """Remember the signal."""
        super().__init__(signal_number)
        # the shell's convention for signals
        self.status = 128 + signal_number
