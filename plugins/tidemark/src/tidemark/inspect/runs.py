"""Reads the run history: the latest run of each stream, and the age of its rows.

A killed run can't record its end, and its row says `running` until the next run. Its lock tells that it is gone.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from psycopg import sql
from rich.table import Table

from singer_postgres.core import advisory_locks
from singer_postgres.core.errors import one_line
from singer_postgres.core.warehouse import run_history
from tidemark.inspect import source_costs

if TYPE_CHECKING:
    import psycopg

    from tidemark.project.sources import SourceDefinition

# a run that failed before anything was loaded knows no source, and counts until a later one does
_LATEST = """
    select distinct on (source, stream) table_name, stream, run_id, outcome, started_at, ended_at, rows_read,
        rows_inserted, rows_updated, rows_deleted, rows_rejected, bookmark_after, error,
        now() - max(extracted_at) filter (where outcome = 'succeeded') over (partition by source, stream), {0}
    from {1} run
    where source <> '' or not exists (select from {1} known where known.stream = run.stream and known.source <> '')
    order by source, stream, started_at desc
"""


@dataclass(frozen=True)
class LatestRun:
    """The latest run of a stream. `age` is the time since the last successful run read the source.

    Attributes:
        costs: what reading cost the source, by the columns of the history; None before a run of this release.
        retired: the source or the stream was given up, so its age does not matter.
    """

    source: str
    retired: bool
    stream: str
    run_id: str
    outcome: str
    started_at: datetime
    ended_at: datetime | None
    rows_read: int
    rows_inserted: int
    rows_updated: int
    rows_deleted: int
    rows_rejected: int
    bookmark: str | None
    error: str | None
    age: timedelta | None
    costs: dict[str, Any] | None = None

    def as_dict(self) -> dict[str, Any]:
        """Return it as JSON values: instants in ISO 8601, the age in seconds."""
        values = asdict(self)
        for name, value in values.items():
            if isinstance(value, datetime):
                values[name] = value.isoformat()
        values["age_seconds"] = round(self.age.total_seconds()) if self.age else None
        del values["age"]
        return values


def latest(connection: psycopg.Connection[Any], source: SourceDefinition) -> list[LatestRun]:
    """Return the latest run of each stream of a source; an empty list before the first run."""
    name = sql.Identifier(source.raw_schema, run_history.TABLE.name)
    there = connection.execute("select to_regclass(%s)", [name.as_string(connection)]).fetchone()
    if not there or there[0] is None:
        return []
    found = _read(connection, source, name)
    if not any(run.outcome == "running" for _, run in found):
        return [run for _, run in found]
    held = advisory_locks.held(connection)
    # What ran before and after that look had its lock at the time, unless it was killed. A run that has loaded parts of
    # a first load has an end, and waits for the others without the lock.
    running = {run.run_id for _, run in found if run.outcome == "running"}
    return [
        replace(run, outcome="killed")
        if run.outcome == "running" and run.ended_at is None and run.run_id in running and lock not in held
        else run
        for lock, run in _read(connection, source, name)
    ]


def _read(
    connection: psycopg.Connection[Any], source: SourceDefinition, name: sql.Identifier
) -> list[tuple[int, LatestRun]]:
    """Return the latest runs, each with the key of the lock that it holds while it runs."""
    return [
        (
            advisory_locks.key("tidemark load", source.raw_schema, table_name),
            LatestRun(source.name, bool(source.retired) or stream in source.retired_streams, stream, *row),
        )
        for table_name, stream, *row in connection.execute(sql.SQL(_LATEST).format(source_costs.COLUMN, name))
    ]


def table(runs: list[LatestRun], *, several: bool) -> Table:
    """Return the runs as a table for the terminal.

    Args:
        several: the project has several sources, so the streams have their names.
    """
    shown = Table(box=None, pad_edge=False, header_style="bold")
    shown.add_column("stream", no_wrap=True)
    for heading in ("last run", "read", "new", "changed", "deleted", "rejected"):
        shown.add_column(heading, justify="right" if heading != "last run" else "left", no_wrap=True)
    shown.add_column("from the source", justify="right", no_wrap=True)
    shown.add_column("age", justify="right", no_wrap=True)
    shown.add_column("error", overflow="fold")
    for run in runs:
        figures = (run.rows_read, run.rows_inserted, run.rows_updated, run.rows_deleted, run.rows_rejected)
        colour = {"succeeded": "green", "running": "cyan"}.get(run.outcome, "red")
        shown.add_row(
            f"{run.source}/{run.stream}" if several else run.stream,
            f"[{colour}]{run.outcome}[/] {run.started_at:%Y-%m-%d %H:%M}",
            *(f"{figure:,}" for figure in figures),
            source_costs.brief(run.costs or {}),
            "retired" if run.retired else _spoken(run.age),
            one_line(run.error) if run.error else "",
        )
    return shown


def _spoken(age: timedelta | None) -> str:
    if age is None:
        return "never"
    minutes = int(age.total_seconds() // 60)
    if minutes < 60:  # noqa: PLR2004 - of an hour
        return f"{minutes} min"
    hours = minutes // 60
    return f"{hours} h" if hours < 48 else f"{hours // 24} days"  # noqa: PLR2004 - two days
