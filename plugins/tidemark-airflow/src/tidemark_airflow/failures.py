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


def failure_of(status: int, report: dict[str, Any], error: dict[str, Any] | None) -> RunFailed:
    """Return the exception for a failed run.

    Args:
        status: the exit status of the process.
        report: its last report; empty if it printed none.
        error: the error that ended it before it printed a report.
    """
    found = report.get("error") or error
    if found is None:
        # killed by a signal, or ended without an error
        reason = f"tidemark ended with status {status} and gave no reason"
        return RunFailed(reason, "process_gone", report)
    kind = RunFailed if found.get("transient", True) else PermanentFailure
    return kind(str(found["message"]), str(found["code"]), report)
