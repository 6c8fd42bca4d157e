"""The report of a run: counts from its events, and facts from the warehouse's run history."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import psycopg
from psycopg import sql

from singer_postgres.core.warehouse import run_history, schema_changes
from tidemark.errors import UnreachableError, UsageError
from tidemark.inspect import source_costs
from tidemark.project import connections, database_settings
from tidemark.run.outcome import named

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from datetime import datetime

    from tidemark.project.database_settings import Warehouse
    from tidemark.project.directory import Project
    from tidemark.run.outcome import RunOutcome

_MODEL_RUNS = "_tidemark_model_runs"


@dataclass
class RunReport:
    """The result of a run.

    Attributes:
        run_id: identifies the run in Meltano's log, in dbt's and in the warehouse's history.
        error: why it failed: `code`, `transient`, `hint`, and `message` on one line; None if it succeeded.
        streams: rows by stream, each as `read`, `inserted`, `updated`, `deleted`.
        failed: the streams that failed.
        source_costs: what reading them cost the source, by stream, each by the columns of the history.
        rows_moved: how many rows this run wrote, and any other run since `moved_since`: rows of raw if this run loaded
        something, rows of models if dbt ran. None if the warehouse could not be asked.
        as_of: the time of these counts, by the warehouse's clock; the `moved_since` of the next report.
        nodes: how many of dbt's models or tests `passed`, `warned` or `failed`.
        left_out: models that were not built, because a source below them was not loaded; `why_left_out` has it.
        schema_changes: changes of the source's tables, one line each.
    """

    run_id: str
    error: dict[str, Any] | None = None
    streams: dict[str, dict[str, int]] = field(default_factory=dict)
    failed: list[str] = field(default_factory=list)
    source_costs: dict[str, dict[str, Any]] = field(default_factory=dict)
    rows_moved: int | None = 0
    as_of: str | None = None
    nodes: dict[str, int] = field(default_factory=dict)
    left_out: list[str] = field(default_factory=list)
    why_left_out: str = ""
    schema_changes: list[str] = field(default_factory=list)
    seconds: float = 0

    def as_dict(self) -> dict[str, Any]:
        """Return the report as a JSON object."""
        return asdict(self)

    def lines(self) -> Iterator[str]:
        """Yield the report as lines of text."""
        for stream in sorted({*self.streams, *self.failed}):
            parts = ["failed"] if stream in self.failed else []
            if (rows := self.streams.get(stream)) is not None:
                parts.append(", ".join(f"{rows.get(what, 0):,} {word}" for what, word in _WORDS.items()))
            if cost := source_costs.spoken(self.source_costs.get(stream, {})):
                parts.append(f"from the source {cost}")
            yield f"{stream}: {'; '.join(parts)}"
        if self.nodes:
            yield f"dbt: {', '.join(f'{count} {what}' for what, count in self.nodes.items())}"
        if self.left_out:
            yield f"not built, {self.why_left_out}: {named(self.left_out)}"
        for change in self.schema_changes:
            yield f"schema changed: {change}"
        ended = f"failed ({self.error['code']}): {self.error['message'].rstrip('.')}" if self.error else "succeeded"
        yield f"Run {self.run_id} {ended}; {self.seconds:.1f} s"


_WORDS = {"read": "read", "inserted": "new", "updated": "changed", "deleted": "deleted"}


def report_of(  # noqa: PLR0913 - each argument has a name
    project: Project,
    warehouse: Warehouse,
    outcome: RunOutcome,
    *,
    run_id: str,
    since: datetime | None,
    schemas: Sequence[str],
) -> RunReport:
    """Return the report of a run, from its events and the warehouse's history.

    Args:
        schemas: the raw schemas of the sources that the run loads.
    """
    streams = {stream: dict(rows) for stream, rows in outcome.rows.items()}
    report = RunReport(run_id, streams=streams, failed=outcome.failed_streams)
    counts = {
        "passed": sum(block.passed for block in outcome.blocks),
        "warned": sum(block.warned for block in outcome.blocks),
        "failed": sum(len(block.failed_nodes) for block in outcome.blocks),
    }
    if any(counts.values()):
        report.nodes = counts
    if outcome.left_out:
        report.left_out, report.why_left_out = outcome.left_out, outcome.why_left_out
    if failure := outcome.failure():
        report.error = {
            "code": failure.code,
            "transient": failure.transient,
            "hint": failure.hint,
            "message": failure.message,
        }
    parts = [block.part for block in outcome.blocks if block.part is not None]
    models = set().union(*parts) if parts else None
    _ask_warehouse(project, warehouse, report, since, schemas, models)
    return report


def _ask_warehouse(  # noqa: PLR0913, PLR0917 - everything that it needs
    project: Project,
    warehouse: Warehouse,
    report: RunReport,
    since: datetime | None,
    schemas: Sequence[str],
    models: set[str] | None,
) -> None:
    """Add the run's schema changes and the count of moved rows from the warehouse's history.

    Args:
        models: the models whose rows count; None for all.
    """
    moved = 0
    try:
        with connections.connect(warehouse) as connection:
            for schema in schemas:
                table = sql.Identifier(schema, schema_changes.TABLE.name)
                if _exists(connection, table):
                    query = "select stream, column_name, change, was, becomes from {} where run_id = %s order by id"
                    for stream, *change in connection.execute(sql.SQL(query).format(table), [report.run_id]):
                        report.schema_changes.append(f"{stream}: {schema_changes.Change(*change)}")
            if report.streams:
                for schema in schemas:
                    report.source_costs |= _costs_of_streams(connection, schema, report.run_id)
                recorded = sum(_rows_of_streams(connection, schema, report.run_id, since) for schema in schemas)
                moved = max(recorded, _counted(report))
            report.as_of = connection.execute("select clock_timestamp()").fetchone()[0].isoformat()  # type: ignore[index]
        if report.nodes:
            with connections.connect(database_settings.transformer(project, warehouse)) as connection:
                moved += _rows_of_models(connection, report.run_id, since, models)
    except (psycopg.Error, UsageError, UnreachableError):
        # the warehouse is now unreachable, or the role may not read the history: the run itself is over
        report.rows_moved = None
    else:
        report.rows_moved = moved


def _counted(report: RunReport) -> int:
    """Return how many rows the target reported: another target's schema has its own history, or none."""
    return sum(rows.get(what, 0) for rows in report.streams.values() for what in ("inserted", "updated", "deleted"))


def _rows_of_streams(connection: psycopg.Connection[Any], schema: str, run_id: str, since: datetime | None) -> int:
    table = sql.Identifier(schema, run_history.TABLE.name)
    if not _exists(connection, table):
        return 0
    query = sql.SQL(
        "select coalesce(sum(rows_inserted + rows_updated + rows_deleted), 0)::bigint from {} "
        "where run_id = %s or coalesce(ended_at, started_at) > %s"
    )
    return int((connection.execute(query.format(table), [run_id, since]).fetchone() or (0,))[0])


def _costs_of_streams(connection: psycopg.Connection[Any], schema: str, run_id: str) -> dict[str, dict[str, Any]]:
    table = sql.Identifier(schema, run_history.TABLE.name)
    if not _exists(connection, table):
        return {}
    query = sql.SQL("select stream, {} from {} run where run_id = %s").format(source_costs.COLUMN, table)
    return {stream: costs for stream, costs in connection.execute(query, [run_id]) if costs}


def _rows_of_models(
    connection: psycopg.Connection[Any], run_id: str, since: datetime | None, models: set[str] | None
) -> int:
    query = "select n.nspname from pg_class c join pg_namespace n on n.oid = relnamespace where relname = %s"
    total = 0
    for (schema,) in connection.execute(query, [_MODEL_RUNS]).fetchall():
        table = sql.Identifier(schema, _MODEL_RUNS)
        if not _exists(connection, table):
            continue
        written = sql.SQL(
            "select coalesce(sum(rows_written), 0)::bigint from {} "
            "where (run_id = %s or started_at + make_interval(secs => seconds) > %s) "
            "and (%s::text[] is null or model = any(%s))"
        ).format(table)
        these = None if models is None else sorted(models)
        total += (connection.execute(written, [run_id, since, these, these]).fetchone() or (0,))[0]
    return total


def _exists(connection: psycopg.Connection[Any], table: sql.Identifier) -> bool:
    """Return whether the table exists and this role may read it."""
    name = table.as_string(connection)
    query = "select coalesce(has_table_privilege(to_regclass(%s), 'select'), false)"
    return connection.execute(query, [name]).fetchone() == (True,)
