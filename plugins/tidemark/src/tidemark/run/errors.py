"""The error of a failed run. It carries the code of the failure in the run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tidemark.errors import BusyError, SourceUnreachableError, TidemarkError, UsageError, WarehouseUnreachableError

if TYPE_CHECKING:
    from tidemark.run.events import Failure

# a failure in tap, target or dbt ends a run as the same one does before they start
_STATUSES = {
    kind.code: kind.status for kind in (BusyError, SourceUnreachableError, UsageError, WarehouseUnreachableError)
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
