"""The error of a failed run. It carries the code of the failure in the run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from singer_postgres.core import errors
from tidemark.errors import TidemarkError, UnreachableError, UsageError

if TYPE_CHECKING:
    from tidemark.run.events import Failure

# A tap or target ends with 1 whatever failed. The run ends as a command does that finds the same.
_STATUSES = {
    errors.BusyError.code: errors.BusyError.status,
    **dict.fromkeys((errors.SettingInvalidError.code, errors.PoolerError.code), UsageError.status),
    **dict.fromkeys(
        (
            errors.SourceUnreachableError.code,
            errors.WarehouseUnreachableError.code,
            errors.TunnelError.code,
            errors.LoginRefusedError.code,
            errors.TooManyConnectionsError.code,
        ),
        UnreachableError.status,
    ),
}


class RunFailedError(TidemarkError):
    """A Meltano block of the run failed. The error has the code of that failure, and its exit status."""

    def __init__(self, message: str, failure: Failure) -> None:
        """Remember the message and the failure that it describes."""
        super().__init__(message)
        self._failure = failure
        self.status = _STATUSES.get(failure.code, TidemarkError.status)

    def fields(self) -> dict[str, Any]:
        """Return the failure's fields."""
        return {"code": self._failure.code, "transient": self._failure.transient, "hint": self._failure.hint}
