"""The error of a failed run. It carries the code of the failure in the run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from singer_postgres.core import errors
from tidemark.errors import TidemarkError

if TYPE_CHECKING:
    from tidemark.run.events import Failure


class RunFailedError(TidemarkError):
    """A Meltano block of the run failed. The error has the code of that failure, and its exit status."""

    def __init__(self, message: str, failure: Failure) -> None:
        """Remember the message and the failure that it describes."""
        super().__init__(message)
        self._failure = failure
        # tap, target or dbt end a run as the same error of a command does
        kinds = (kind for kind in errors.catalogue() if kind.code == failure.code)
        self.status = next((kind.status for kind in kinds), TidemarkError.status)

    def fields(self) -> dict[str, Any]:
        """Return the failure's fields."""
        return {"code": self._failure.code, "transient": self._failure.transient, "hint": self._failure.hint}
