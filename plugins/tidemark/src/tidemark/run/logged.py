"""Writes a run's beginning, its rows and its end into the log of all runs."""

from __future__ import annotations

import time
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from singer_postgres.core.errors import CodedError, one_line
from tidemark.logs.run_log import RunLog, of_error

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from tidemark.run.outcome import RunOutcome

_NS = 1_000_000_000


@dataclass
class LoggedRun:
    """A run that is logged.

    Attributes:
        outcome: its outcome; None if it ended before Meltano started.
    """

    outcome: RunOutcome | None = None


@contextmanager
def logged(run_id: str, blocks: Sequence[str]) -> Iterator[LoggedRun]:
    """Log that this run began, and after the `with` block how it ended, also if that raises."""
    log, run, began = RunLog(run_id), LoggedRun(), time.monotonic()
    log.write(f"Run began: {' '.join(blocks)}", more={"event.action": "run-began"})
    try:
        yield run
    except BaseException as error:
        _end(log, began, _fields(error))
        # entry.main need not log it again
        error.is_logged = True  # type: ignore[attr-defined]
        raise
    for stream, rows in sorted(run.outcome.rows.items() if run.outcome else ()):
        name = run.outcome.without_source(stream) if run.outcome else stream
        if any(rows.values()):
            counts = {f"tidemark.rows.{what}": count for what, count in rows.items()}
            said = ", ".join(f"{count:,} {what}" for what, count in rows.items())
            log.write(said, more={"event.action": "stream-ended", "tidemark.stream": name, **counts})
    failure = run.outcome.failure() if run.outcome else None
    _end(log, began, asdict(failure) if failure else None)


def _end(log: RunLog, began: float, error: dict[str, Any] | None) -> None:
    more: dict[str, Any] = {"event.duration": int((time.monotonic() - began) * _NS), "event.outcome": "success"}
    if error is None:
        log.write("Run succeeded", more={**more, "event.action": "run-ended"})
        return
    more |= {**of_error(error), "event.action": "run-ended"}
    log.write(f"Run failed ({error['code']}): {error['message']}", level="error", more=more)


def _fields(error: BaseException) -> dict[str, Any]:
    kind = error if isinstance(error, CodedError) else CodedError()
    message = one_line(error) if isinstance(error, Exception) else f"it was interrupted ({type(error).__name__})"
    return {**kind.fields(), "message": message}
