"""A task's errors, with what alerts and retries need."""

from __future__ import annotations

from typing import Any

from airflow.sdk.exceptions import AirflowException, AirflowFailException


class RunFailed(AirflowException):
    """A run failed, and a retry may succeed.

    Attributes:
        reason: the reason, in one line.
        kind: a heading of docs/runbook.md, as in run/kinds.py of plugins/tidemark.
        report: the last report of `tidemark run --json`; empty if there is none.
    """

    def __init__(self, reason: str, kind: str, report: dict[str, Any]) -> None:
        super().__init__(reason)
        self.reason = reason
        self.kind = kind
        self.report = report


class PermanentFailure(RunFailed, AirflowFailException):
    """A failure that no retry can fix: Airflow fails the task at once."""
