"""The codes that only Airflow gives: for what no run can report of itself. All others are those of the run's error."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class AlertCode:
    """What docs/reference/errors.md says of a code.

    Attributes:
        code: the code in alerts. It never changes.
        cause: what happened.
        cure: what to do.
        transient: whether it may pass by itself.
        section: the heading of docs/runbook.md that helps further.
    """

    code: str
    cause: str
    cure: str
    transient: bool
    section: str


TIMEOUT = AlertCode(
    "timeout",
    "A task, or the whole run, did not end within its limit, and Airflow ended it.",
    "End what blocks it, or raise the limit.",
    transient=True,
    section="timeout",
)
DEADLINE = AlertCode(
    "deadline",
    "A run was not done by its deadline. It goes on.",
    "Look at what it waits for.",
    transient=True,
    section="deadline",
)
SCHEMA_CHANGED = AlertCode(
    "schema_changed",
    "A successful run followed changes of the source's tables.",
    "Look whether models need the new columns.",
    transient=False,
    section="shape",
)
ALL = (TIMEOUT, DEADLINE, SCHEMA_CHANGED)
