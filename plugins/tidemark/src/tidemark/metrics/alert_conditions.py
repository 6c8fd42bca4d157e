"""The conditions of the alerts about streams, models and backups, for a terminal without Prometheus. Pure: no I/O here.

They are those of monitoring/prometheus/rules, without the time that an alert waits and what other exporters
know.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tidemark.metrics.overview import Overview, StreamOverview

# errors that somebody must decide about, as in the rules
SCHEMA_CODES = frozenset(
    {
        "column_missing",
        "column_recreated",
        "column_retyped",
        "dependent_object",
        "key_changed",
        "key_missing",
        "limit_exceeded",
        "name_taken",
        "replication_key_unusable",
        "table_missing",
        "type_unsupported",
        "warehouse_altered",
    }
)
# of LOG_BASED streams
_NOT_WELL = {"left the log", "to be repaired"}
_HOUR_S = 3600.0
_DAY_S = 24 * _HOUR_S
_BACKUP_S = 26 * _HOUR_S
_USUAL_LEAST, _FEW_ROWS, _TIMES = 10, 100, 5


@dataclass(frozen=True)
class Condition:
    """A condition that holds.

    Attributes:
        alert: the alert's name, which is an anchor in the runbook.
        about: the stream, model or part; empty for the whole.
        figures: what was seen, in words.
    """

    alert: str
    about: str
    figures: str


def holding(found: Overview, now: float) -> Iterator[Condition]:
    """Yield the conditions that hold at `now`, in seconds since the epoch."""
    for part, up in found.parts.items():
        if not up:
            yield Condition(
                "DatabaseAway" if part == "warehouse" else "TidemarkPartUnreadable", part, "it can't be read"
            )
    for stream in found.streams:
        for alert, figures in (*_of_runs(stream, now), *_of_rows(stream)):
            yield Condition(alert, f"{stream.source}: {stream.stream}", figures)
    yield from _of_models(found, now)
    yield from _of_backups(found, now)


def _of_runs(stream: StreamOverview, now: float) -> Iterator[tuple[str, str]]:
    interval = stream.interval or float("inf")
    ran = now - stream.started if stream.started is not None else 0
    good = now - stream.succeeded if stream.succeeded is not None else 0
    running = stream.running_rows is not None
    # a stream without a schedule, which may have been removed, has two days
    if stream.outcome in {"failed", "killed"} and (running or ran <= 2 * (stream.interval or _DAY_S)):
        alert = "StreamSchemaRefused" if stream.code in SCHEMA_CODES else "StreamFailed"
        yield alert, f"{stream.code or stream.outcome}, {duration(ran)} ago"
    if ran > 1.5 * interval and not running:
        yield "StreamNotStarted", f"no run for {duration(ran)}, every {duration(interval)}"
    if good > 2 * interval:
        yield "StreamNoSuccessfulRun", f"none succeeded for {duration(good)}, every {duration(interval)}"
    if stream.lag is not None and stream.lag > 2 * interval and good < 1.5 * interval:
        yield "StreamStale", f"{duration(stream.lag)} behind the source, though runs succeed"
    if stream.locked and ran > 2 * interval:
        yield "StreamLocked", f"its last run began {duration(ran)} ago"
    if stream.log_state in _NOT_WELL:
        yield "StreamNeedsRepair", f"LOG_BASED: {stream.log_state}"
    if stream.interval is not None and stream.held > min(interval, _HOUR_S):
        yield "StreamBookmarkHeld", f"for {duration(stream.held)} by {stream.held_by}"


def _of_rows(stream: StreamOverview) -> Iterator[tuple[str, str]]:
    if stream.rejects:
        yield "StreamRejects", f"{stream.rejects:,.0f} records wait in _tidemark_rejects"
    if stream.usual_rows is not None and stream.rows is not None:
        figures = f"{stream.rows:,.0f} rows; {stream.usual_rows:,.0f} are usual"
        if stream.usual_rows >= _USUAL_LEAST and stream.rows == 0:
            yield "StreamNoRows", figures
        if stream.rows > _TIMES * max(stream.usual_rows, _FEW_ROWS):
            yield "StreamManyRows", figures
    if stream.differences:
        yield "ReconcileDifferences", f"{stream.differences:,.0f} rows differ from the source"
    if not stream.reconciled:
        yield "ReconcileFailed", "it could not be compared with its source"


def _of_models(found: Overview, now: float) -> Iterator[Condition]:
    for model in found.models:
        if model.outcome == "error":
            yield Condition("ModelFailed", model.model, "its last build failed")
        if model.failing:
            yield Condition("TestsFailing", model.model, f"{model.failing} of its tests fail")
        if model.succeeded is not None and found.build_interval and now - model.succeeded > 2 * found.build_interval:
            yield Condition("ModelStale", model.model, f"built {duration(now - model.succeeded)} ago")


def _of_backups(found: Overview, now: float) -> Iterator[Condition]:
    if found.backups == 0:
        yield Condition("BackupMissing", "", "there is no backup")
    elif found.backup_made is not None and now - found.backup_made > _BACKUP_S:
        yield Condition("BackupMissing", "", f"the newest is {duration(now - found.backup_made)} old")
    if found.drill_succeeded is False:
        yield Condition("BackupDrillFailed", "", "the last drill could not restore a backup")


def duration(seconds: float) -> str:
    """Return a duration in words of at most two units."""
    for unit, name, smaller, smaller_name in ((86400, "d", 3600, "h"), (3600, "h", 60, "min"), (60, "min", 1, "s")):
        if seconds >= unit:
            whole, rest = divmod(int(seconds), unit)
            return f"{whole} {name} {rest // smaller} {smaller_name}" if rest >= smaller else f"{whole} {name}"
    return f"{seconds:.0f} s"
