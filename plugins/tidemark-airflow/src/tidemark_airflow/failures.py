"""A task's errors, with what alerts and retries need."""

from __future__ import annotations

from typing import Any

from airflow.sdk.exceptions import AirflowException, AirflowFailException


class RunFailed(AirflowException):
    """A run failed, and a retry may succeed.

    Attributes:
        reason: the reason, in one line.
        code: the error's code, as docs/reference/errors.md lists them.
        report: the last report of `tidemark run --json`; empty if there is none.
    """

    def __init__(self, reason: str, code: str, report: dict[str, Any]) -> None:
        super().__init__(reason)
        self.reason = reason
        self.code = code
        self.report = report


class PermanentFailure(RunFailed, AirflowFailException):
    """A failure that no retry can fix: Airflow fails the task at once."""
