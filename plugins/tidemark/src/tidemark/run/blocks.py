"""Some blocks of `meltano run`, as a schedule or a service runs them: its lines as they come, and then a report."""

from __future__ import annotations

import re
import time
from dataclasses import asdict, dataclass, field
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any, Protocol

import psycopg
from psycopg import sql

from singer_postgres.core.warehouse import run_history, schema_changes
from tidemark.errors import UnreachableError, UsageError
from tidemark.local import databases
from tidemark.project import connections, meltano_project, settings
from tidemark.project.file_locks import hold
from tidemark.project.variables import environment
from tidemark.run import meltano_run
from tidemark.run.events import BlockDone, Line, NodeDone, Rows
from tidemark.run.kinds import FailureKind, kind_of, split
from tidemark.run.outcome import BlockOutcome, RunOutcome

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from datetime import datetime

    from tidemark.project.directory import Project
    from tidemark.project.settings import Source, Warehouse
    from tidemark.run.events import Event

# how often a load says how far it is
_PROGRESS_S = 10
_MODEL_RUNS = "_tidemark_model_runs"
_NODE_LEVELS = {"ERROR": "error", "FAIL": "error", "WARN": "warning"}
# what Meltano, the SDK and dbt say at every run, and nobody needs to know
_NOISE = re.compile(
    r"Using logging configuration|Environment |Meltano \d|Force option is enabled|Using systemdb|Reading state from|"
    r"Incremental state has been updated|Running catalog discovery|Run completed|METRIC|Skipping parse of env var|"
    r"(?:tap|target)-\S+ v\d|Reader |\d+ of \d+ (?:START|OK hook)|Running with dbt|Registered adapter|Found \d|"
    r"Concurrency: |Done\.|\d\d:\d\d:\d\d$"
)


class Listener(Protocol):
    """Is given each line of a run: `debug`, `info`, `warning` or `error`, and the text."""

    def __call__(self, level: str, text: str) -> None:
        """Take a line."""


@dataclass
class RunReport:
    """What came of it.

    Attributes:
        run_id: finds the run in Meltano's log, in dbt's and in the warehouse's history.
        kind: of failure; None if all went well.
        reason: why it failed, in one line.
        streams: rows by stream, each as `read`, `inserted`, `updated`, `deleted`.
        rows_moved: how many rows of raw, if something was loaded, and of models, if dbt ran, were written by this run,
            and by whichever other since `moved_since`; None if the warehouse would not say.
        as_of: by the warehouse's clock, when that was true; the next one's `moved_since`.
        nodes: how many of dbt's models or tests `passed`, `warned`, `failed`.
        schema_changes: what changed in the shape of the source's tables, a line each.
    """

    run_id: str
    kind: FailureKind | None = None
    reason: str | None = None
    streams: dict[str, dict[str, int]] = field(default_factory=dict)
    rows_moved: int | None = 0
    as_of: str | None = None
    nodes: dict[str, int] = field(default_factory=dict)
    schema_changes: list[str] = field(default_factory=list)
    seconds: float = 0

    def as_dict(self) -> dict[str, Any]:
        """Return it as JSON has it."""
        return asdict(self)

    def lines(self) -> Iterator[str]:
        """Say it to people."""
        for stream, rows in sorted(self.streams.items()):
            figures = ", ".join(f"{rows.get(what, 0):,} {word}" for what, word in _WORDS.items())
            yield f"{stream}: {figures}"
        if self.nodes:
            yield f"dbt: {', '.join(f'{count} {what}' for what, count in self.nodes.items())}"
        for change in self.schema_changes:
            yield f"changed shape: {change}"
        ended = f"failed ({self.kind}): {self.reason}" if self.kind else "ended well"
        yield f"Run {self.run_id} {ended}; {self.seconds:.1f} s"


_WORDS = {"read": "read", "inserted": "new", "updated": "changed", "deleted": "deleted"}


def run(  # noqa: PLR0913 - each is told apart by its name
    project: Project,
    blocks: Sequence[str],
    *,
    run_id: str,
    say: Listener,
    more: Mapping[str, str] | None = None,
    save_state: bool = True,
    moved_since: datetime | None = None,
) -> RunReport:
    """Run the blocks, of which each begins when the one before it ended well.

    Args:
        more: variables for Meltano and its plugins.
        save_state: with false, Meltano's state is not looked at, and stays as it is.
        moved_since: see `Report`.

    Raises:
        UsageError: they can't be run in this order.
        BusyError: the servers are just being stopped, or the whole pipeline run.
        TidemarkError: a database can't be reached or started.
    """
    began = time.monotonic()
    try:
        expected = split(blocks)
    except ValueError as error:
        raise UsageError(f"{error}, as in `tidemark run tap-postgres target-postgres`.") from None
    # beside other runs: what must not be done twice at once, the warehouse's own locks keep apart, on all machines
    with hold(project.pipeline_lock, doing="running the pipeline", shared=True) as lock:
        source, warehouse = databases.bring_up(project)
        databases.try_own(project)
        outcome = RunOutcome(BlockOutcome(name) for name in expected)
        surroundings = {**variables(project, source, warehouse), **(more or {})}
        with meltano_run.run(
            project, blocks, run_id=run_id, lock=lock, environment=surroundings, save_state=save_state
        ) as events:
            _follow(events, outcome, say)
        report = RunReport(run_id, seconds=0)
        _forgive_inherited(project, outcome)
        _summarize(report, outcome)
        _ask_warehouse(project, warehouse, report, moved_since)
    report.seconds = round(time.monotonic() - began, 3)
    return report


def variables(project: Project, source: Source, warehouse: Warehouse) -> dict[str, str]:
    """Return what tells Meltano and its plugins where the databases are."""
    return {
        **source.variables(),
        **warehouse.variables(),
        **settings.transformer_variables(project, warehouse),
        "MELTANO_ENVIRONMENT": environment(project),
    }


def _follow(events: Iterator[Event], outcome: RunOutcome, say: Listener) -> None:
    said = time.monotonic()
    for event in events:
        block = outcome.block
        outcome.take(event)
        match event:
            case Line(text, plugin, level) if text.strip():
                say("debug" if _NOISE.match(text.strip()) else level, f"{plugin}: {text}")
            case NodeDone(index, total, status, what):
                say(_NODE_LEVELS.get(status, "info"), f"dbt: {index} of {total} {status} {what}")
            case BlockDone(success=False, error=error):
                say("error", f"{block.title} failed{f': {error}' if error else ''}")
            case BlockDone():
                say("info", f"{block.title} ended well")
            case Rows() if time.monotonic() - said > _PROGRESS_S:
                said = time.monotonic()
                say("info", f"{outcome.read:,} rows of {len(outcome.rows)} streams so far")


def _forgive_inherited(project: Project, outcome: RunOutcome) -> None:
    """Take out the missing streams of which a tap has heard from the tap that it inherits from alone."""
    for block in outcome.blocks:
        if block.missing and (named := meltano_project.named_streams(project, block.title.split()[0])) is not None:
            block.missing = [stream for stream in block.missing if any(fnmatchcase(stream, each) for each in named)]


def _summarize(report: RunReport, outcome: RunOutcome) -> None:
    """Say in the report what the events came to."""
    report.streams = {stream: dict(rows) for stream, rows in outcome.rows.items()}
    counts = {
        "passed": sum(block.passed for block in outcome.blocks),
        "warned": sum(block.warned for block in outcome.blocks),
        "failed": sum(len(block.failed_nodes) for block in outcome.blocks),
    }
    if any(counts.values()):
        report.nodes = counts
    if not outcome.ended_well:
        report.reason = outcome.reason()
        report.kind = FailureKind.busy if outcome.busy else kind_of(outcome.culprit.title, report.reason)
    elif outcome.missing:
        report.kind = FailureKind.shape
        report.reason = f"The source has no {', '.join(outcome.missing)}; all else was loaded"


def _ask_warehouse(project: Project, warehouse: Warehouse, report: RunReport, since: datetime | None) -> None:
    """Add what the warehouse's history has of the run, and of what moved since."""
    moved = 0
    try:
        with connections.connect(warehouse) as connection:
            table = sql.Identifier(warehouse.default_target_schema, schema_changes.TABLE.name)
            if _exists(connection, table):
                query = "select stream, column_name, change, was, becomes from {} where run_id = %s order by id"
                for stream, *change in connection.execute(sql.SQL(query).format(table), [report.run_id]):
                    report.schema_changes.append(f"{stream}: {schema_changes.Change(*change)}")
            if report.streams:
                moved = max(_rows_of_streams(connection, warehouse, report.run_id, since), _counted(report))
            report.as_of = connection.execute("select clock_timestamp()").fetchone()[0].isoformat()  # type: ignore[index]
        if report.nodes:
            with connections.connect(settings.transformer(project, warehouse)) as connection:
                moved += _rows_of_models(connection, report.run_id, since)
    except (psycopg.Error, UsageError, UnreachableError):
        # it went away after the run, or this role may not see that; neither says anything of the run
        report.rows_moved = None
    else:
        report.rows_moved = moved


def _counted(report: RunReport) -> int:
    """Return how many rows the target said that it wrote: a second one's schema has a history of its own."""
    return sum(rows.get(what, 0) for rows in report.streams.values() for what in ("inserted", "updated", "deleted"))


def _rows_of_streams(
    connection: psycopg.Connection[Any], warehouse: Warehouse, run_id: str, since: datetime | None
) -> int:
    table = sql.Identifier(warehouse.default_target_schema, run_history.TABLE.name)
    if not _exists(connection, table):
        return 0
    query = sql.SQL(
        "select coalesce(sum(rows_inserted + rows_updated + rows_deleted), 0)::bigint from {} "
        "where run_id = %s or coalesce(ended_at, started_at) > %s"
    )
    return int((connection.execute(query.format(table), [run_id, since]).fetchone() or (0,))[0])


def _rows_of_models(connection: psycopg.Connection[Any], run_id: str, since: datetime | None) -> int:
    query = "select n.nspname from pg_class c join pg_namespace n on n.oid = relnamespace where relname = %s"
    total = 0
    for (schema,) in connection.execute(query, [_MODEL_RUNS]).fetchall():
        table = sql.Identifier(schema, _MODEL_RUNS)
        if not _exists(connection, table):
            continue
        written = sql.SQL(
            "select coalesce(sum(rows_written), 0)::bigint from {} "
            "where run_id = %s or started_at + make_interval(secs => seconds) > %s"
        ).format(table)
        total += (connection.execute(written, [run_id, since]).fetchone() or (0,))[0]
    return total


def _exists(connection: psycopg.Connection[Any], table: sql.Identifier) -> bool:
    """Whether the table is there, and may be read."""
    name = table.as_string(connection)
    query = "select coalesce(has_table_privilege(to_regclass(%s), 'select'), false)"
    return connection.execute(query, [name]).fetchone() == (True,)
