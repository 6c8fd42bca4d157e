"""Follows one row from the source to the raw table, to the run that loaded it, and to the models that dbt built."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import psycopg
from psycopg import sql
from rich.table import Table as Columns

from singer_postgres.core.warehouse import run_history
from tidemark.errors import TidemarkError, UsageError
from tidemark.inspect import log_status, named_streams
from tidemark.inspect.lineage import models_of
from tidemark.inspect.log_status import FRESH
from tidemark.inspect.reconcile.pairing import Endpoints
from tidemark.project import database_settings
from tidemark.project.connections import connect

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import Console

    from singer_postgres.core.wire import Table
    from tidemark.inspect.lineage import DownstreamModel
    from tidemark.inspect.log_status import LogStatus, LogStream
    from tidemark.inspect.reconcile.hash_queries import ComparedStream
    from tidemark.project.directory import Project
    from tidemark.project.sources import SourceDefinition

    Connection = psycopg.Connection[Any]
    Row = dict[str, Any]

_MOST_ROWS = 3


@dataclass(frozen=True)
class TracedRow:
    """A place where rows with the key may be, and the rows found there.

    Attributes:
        name: SCHEMA.TABLE.
        count: the number of rows.
        rows: the first few rows, as JSON objects.
        said: a remark on the rows.
        run: the run that loaded them last, as a row of `_tidemark_runs`.
    """

    layer: str
    name: str
    count: int
    rows: list[Row]
    said: str = ""
    run: Row | None = field(default=None)


def trace(project: Project, stream: str, key: Sequence[str], *, source: str | None = None) -> list[TracedRow]:
    """Return all places where a row of `stream` may be.

    Args:
        key: a value for each column of the key, in the key's order.
        source: the name of the stream's source, if several have such a stream.

    Raises:
        UsageError: the stream isn't selected, or the key doesn't fit it.
        TidemarkError: the row is in neither database.
    """
    ((definition, (stream,)),) = named_streams.by_source(project, [stream], source).items()
    ends = Endpoints.of(project, definition, [stream])
    with ends.connected() as (there, here):
        pair, table = ends.pair(there, here, ends.selected[stream])
        if len(key) != len(pair.key):
            names = ", ".join(pair.key) or "empty, so its rows can't be traced"
            raise UsageError(f"The key of {stream} is {names}; give a value for each of its columns.")
        row = _Row(there, here, pair, table, stream, tuple(key), _log_of(project, definition, stream))
        try:
            places = [row.in_source(), row.in_raw()]
        except psycopg.DataError as error:
            types = {column.name: column.type for column in pair.selection.wire_columns()}
            wanted = ", ".join(f"{name} ({types[name]})" for name in pair.key)
            raise UsageError(f"{', '.join(key)} is not a valid key of {stream}: write {wanted}.") from error
        if not any(place.count for place in places):
            raise TidemarkError(f"{stream} has no row {', '.join(key)}, neither in the source nor in the warehouse.")
        manifest = project.dbt_target / "manifest.json"
        # dbt's role may read what dbt built
        with connect(database_settings.transformer(project, ends.warehouse)) as models:
            found = [row.in_model(models, model) for model in models_of(manifest, pair.schema, table.name)]
    return [*places, *(place for place in found if place is not None)]


@dataclass(frozen=True)
class _Row:
    """A row, and the databases to look for it in."""

    source: Connection
    warehouse: Connection
    pair: ComparedStream
    table: Table
    stream: str
    key: tuple[str, ...]
    log: tuple[LogStream, LogStatus] | None = None
    """How the stream stands in its source's log, if it is LOG_BASED."""

    def in_source(self) -> TracedRow:
        query = sql.SQL("SELECT to_jsonb(r) FROM ({}) r").format(self.pair.rows_of([self.key]))
        rows = [row[0] for row in self.source.execute(query)]
        relation = self.pair.selection.relation
        said = "" if rows else "not there: deleted, or left out by `where`"
        return TracedRow("source", f"{relation.schema}.{relation.name}", len(rows), rows, said)

    def in_raw(self) -> TracedRow:
        pair, name, width = self.pair, f"{self.pair.schema}.{self.table.name}", len(self.pair.key)
        query = sql.SQL("SELECT to_jsonb(r) FROM {} r WHERE {}").format(pair.name, pair.raw_keys([self.key]))
        rows = [row[0] for row in self.warehouse.execute(query)]
        # the row's hash, and whether the next run will read it
        there = next((row[width:] for row in self.source.execute(pair.source_rows([self.key]))), None)
        if not rows:
            said = "the next run reads it" if there and there[1] else f"missing: {self._advice()}"
            return TracedRow("raw", name, 0, [], f"{said}{self._of_log()}")
        row = rows[0]
        here = next((row[width:] for row in self.warehouse.execute(pair.raw_rows([self.key]))), None)
        if here is None:
            said = f"marked as deleted {row['_sdc_deleted_at']}"
        elif there is None:
            said = f"not in the source: {self._advice()}"
        elif there[0] == here[0]:
            said = "as in the source"
        else:
            said = "differs, and the next run reads it" if there[1] else f"differs: {self._advice()}"
        run = self._run(row["_sdc_sync_started_at"])
        who = f"run {run['run_id']}, {run['outcome']}" if run else "a run that is no longer in the history"
        said = f"{said}; read {row['_sdc_extracted_at']} by {who}{self._of_log()}"
        return TracedRow("raw", name, len(rows), rows, said, run)

    def _advice(self) -> str:
        """Return what to do about a difference."""
        if self.log and self.log[1].fault:
            return "no run can follow its slot: see `tidemark status`"
        if self.log and self.log[0].state in FRESH and self.log[1].lag_bytes:
            return "the next run may read it from the log; if it does not, see `tidemark reconcile`"
        if self.log and self.log[0].why:
            return "see `tidemark slots repair`"
        return "see `tidemark reconcile`"

    def _of_log(self) -> str:
        if self.log is None:
            return ""
        stream, status = self.log
        why = f" ({stream.why})" if stream.why else ""
        return f"; LOG_BASED, {stream.state.value}{why}: the slot is {status.lag} behind"

    def _run(self, sync_started_at: int) -> Row | None:
        name = sql.Identifier(self.pair.schema, run_history.TABLE.name)
        found = self.warehouse.execute("select to_regclass(%s)", [name.as_string()]).fetchone()
        if not found or found[0] is None:
            return None
        wanted = sql.SQL("source = {} AND stream = {} AND sync_started_at = {}").format(
            *map(sql.Literal, (self.table.source, self.stream, sync_started_at))
        )
        query = sql.SQL("SELECT to_jsonb(r) FROM {} r WHERE {} ORDER BY started_at DESC LIMIT 1")
        row = self.warehouse.execute(query.format(name, wanted)).fetchone()
        return row[0] if row else None

    def in_model(self, models: Connection, model: DownstreamModel) -> TracedRow | None:
        """Look for the row in a model; None if the model doesn't exist, or no column of it can be the key."""
        relation = sql.Identifier(model.schema, model.name)
        known = {
            row[0]
            for row in models.execute(
                "select attname from pg_catalog.pg_attribute where attrelid = to_regclass(%s) and attnum > 0 "
                "and not attisdropped",
                [relation.as_string()],
            )
        }
        names = [next((each for each in _names(self.table.name, name) if each in known), "") for name in self.pair.key]
        if "" in names:
            return None
        condition = sql.SQL(" AND ").join(
            sql.SQL("{} = {}").format(sql.Identifier(name), sql.Literal(value))
            for name, value in zip(names, self.key, strict=True)
        )
        query = sql.SQL("SELECT count(*) OVER (), to_jsonb(r) FROM {} r WHERE {} LIMIT {}")
        rows = models.execute(query.format(relation, condition, sql.Literal(_MOST_ROWS))).fetchall()
        count = rows[0][0] if rows else 0
        return TracedRow(model.schema, f"{model.schema}.{model.name}", count, [row[1] for row in rows])


def _log_of(project: Project, source: SourceDefinition, stream: str) -> tuple[LogStream, LogStatus] | None:
    for status in log_status.of_source(project, source):
        for each in status.streams:
            if each.stream == stream:
                return each, status
    return None


def _names(table: str, column: str) -> list[str]:
    """Return the names that a model may have for a table's key column.

    >>> _names("orders", "id")
    ['id', 'order_id', 'orders_id']
    """
    singular = f"{table[:-3]}y" if table.endswith("ies") else table.removesuffix("s")
    return list(dict.fromkeys([column, f"{singular}_{column}", f"{table}_{column}"]))


def as_json(places: Sequence[TracedRow]) -> str:
    """Return the places as a JSON list."""
    return json.dumps([asdict(place) for place in places], indent=2)


def show(console: Console, places: Sequence[TracedRow]) -> None:
    """Print each place with its remark, and as much of its first row as fits on the line."""
    table = Columns(box=None, pad_edge=False, header_style="bold", expand=True)
    table.add_column("where", no_wrap=True)
    table.add_column("rows", justify="right", no_wrap=True)
    table.add_column("the first", no_wrap=True, overflow="ellipsis", ratio=1)
    for place in places:
        row = place.rows[0] if place.rows else {}
        values = ", ".join(f"{name} {value}" for name, value in row.items() if not name.startswith("_"))
        table.add_row(place.name, f"{place.count:,}", values, style="" if place.count else "dim")
    console.print(table)
    for place in places:
        if place.said:
            console.print(f"{place.name}: {place.said}", soft_wrap=True)
