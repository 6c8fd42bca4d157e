"""How a task says what became of its run: what alerts and retries go by."""

from __future__ import annotations

from typing import Any

from airflow.sdk.exceptions import AirflowException, AirflowFailException


class RunFailed(AirflowException):
    """A run failed of something that another try may mend.

    Attributes:
        reason: why, in one line.
        kind: a heading of docs/runbook.md, one of those in pipeline/kinds.py of plugins/tidemark.
        report: what `tidemark run --json` said last; empty if it said nothing.
    """

    def __init__(self, reason: str, kind: str, report: dict[str, Any]) -> None:
        super().__init__(reason)
        self.reason = reason
        self.kind = kind
        self.report = report


class PermanentFailure(RunFailed, AirflowFailException):
    """One of something that no retry mends: Airflow fails the task at once."""
