"""The error that a run ends with, which has the code of what failed in it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from singer_postgres.core.errors import BusyError
from tidemark.errors import TidemarkError

if TYPE_CHECKING:
    from tidemark.run.events import Failure


class RunFailedError(TidemarkError):
    """A block of the run failed; the error has the code of the failure itself."""

    def __init__(self, message: str, failure: Failure) -> None:
        """Take the message, and the failure that it tells of."""
        super().__init__(message)
        self._failure = failure
        self.status = BusyError.status if failure.code == BusyError.code else TidemarkError.status

    def fields(self) -> dict[str, Any]:
        """Return those of the failure."""
        return {"code": self._failure.code, "transient": self._failure.transient, "hint": self._failure.hint}
