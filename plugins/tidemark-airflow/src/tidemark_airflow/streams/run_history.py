"""Reads the warehouse's run records: one short connection, one snapshot, only the `_tidemark_*` tables.

A missing or unreadable table leads to a gap and a note in the overview, not to an error.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import psycopg
from psycopg import errors, sql
from psycopg.rows import dict_row

from tidemark_airflow.streams.overview import Comparison, ModelEntry, RunEntry, SchemaChange, StreamEntry, StreamsPage
from tidemark_airflow.streams.settings import parameters

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from typing import LiteralString

    from tidemark_airflow.schedules import Source
    from tidemark_airflow.streams.settings import Monitor, WarehouseSettings

    Rows = list[dict[str, Any]]

_CONNECT_TIMEOUT_S = 5
# not as start-up options, which poolers refuse. psycopg reads no date style but ISO, and a database may have another.
_READING = """
    set transaction isolation level repeatable read read only;
    set local statement_timeout = '10s'; set local lock_timeout = '5s';
    set local timezone = 'UTC'; set local datestyle = 'ISO'
"""
RUNS, STATE, SLOTS, CHANGES, RECONCILES = (
    f"_tidemark_{name}" for name in ("runs", "state", "slots", "schema_changes", "reconciles")
)
MODEL_RUNS = "_tidemark_model_runs"
_TABLES = """
    select nspname as schema, relname as name,
        has_schema_privilege(n.oid, 'usage') and has_table_privilege(c.oid, 'select') as readable
    from pg_catalog.pg_class c join pg_catalog.pg_namespace n on n.oid = c.relnamespace
    where c.relkind = 'r' and c.relname = any(%s) order by 1, 2
"""
# Leaves out repairs: a repair reads only the rows that differ, so it is not a run of the stream. A backfill does not
# say how fresh the stream is: it has a bookmark and no extracted_at. A run with neither read the source after it
# started. A run that failed before anything was loaded knows no source, and counts until a later one does.
_RUNS = """
    select source, stream, table_name, run_id, outcome, started_at, ended_at, rows_read, rows_inserted, rows_updated,
        rows_deleted, rows_rejected, error, lag_seconds
    from (
        select *, row_number() over (partition by source, stream order by started_at desc) as nth,
            extract(epoch from now() - max(coalesce(extracted_at, case when bookmark_after is null then started_at end))
                filter (where outcome = 'succeeded') over (partition by source, stream))::float as lag_seconds
        from {0} as run where run_id not like 'reconcile-%'
            and (source <> '' or not exists (select from {0} k where k.stream = run.stream and k.source <> ''))
    ) as run
    where nth <= 20 order by started_at
"""
# an older warehouse lacks the columns of LOG_BASED streams
_STATE = """
    select source, stream, table_name, bookmark, extract(epoch from now() - extracted_at)::float as lag_seconds,
        to_jsonb(state) ->> 'slot' as slot, coalesce((to_jsonb(state) ->> 'is_loading')::boolean, false) as is_loading,
        to_jsonb(state) ->> 'repair' as repair
    from {} state
"""
_SLOTS = """
    select source, slot, position::text as position,
        greatest(0, extract(epoch from now() - committed_at))::float as lag_seconds
    from {}
"""
_RECONCILES = "select distinct on (source, stream) * from {} order by source, stream, compared_at desc"
_CHANGES = """
    select changed_at, stream, column_name as column, change, was, becomes from {}
    where changed_at > now() - interval '30 days' order by changed_at desc, id desc limit 200
"""
# a skipped model has no start, so the start of its whole run counts
_MODELS = """
    select distinct on (model) model, outcome, seconds::float, rows_written as rows, message,
        max(started_at) filter (where outcome = 'success') over (partition by model) as built_at
    from (select *, max(started_at) over (partition by invocation_id) as run_at from {}) as run
    order by model, run_at desc nulls last
"""


class HistoryError(Exception):
    """Says in one line why the run records can't be shown and what to do, without any secret."""


def overview(warehouse: WarehouseSettings, monitor: Monitor, sources: Sequence[Source] = ()) -> StreamsPage:
    """Return the overview from the warehouse's run records.

    Args:
        sources: the project's sources.

    Raises:
        HistoryError: the warehouse can't be reached, or does not answer in time.
    """
    with _reading(warehouse, monitor) as connection:
        tables = connection.execute(_TABLES, [[RUNS, STATE, SLOTS, CHANGES, RECONCILES, MODEL_RUNS]]).fetchall()
        history = _HistoryTables(
            connection, {(row["schema"], row["name"]): row["readable"] for row in tables}, monitor.user
        )
        retired = [each.name for each in sources if each.retired]
        found = StreamsPage(warehouse=str(warehouse), at=history.now(), retired=retired)
        # each source has its own schema; a schema that this role may not read belongs to somebody else
        own = warehouse.default_target_schema
        names = {each.schema: each.name for each in sources}
        others = {row["schema"] for row in tables if row["name"] == RUNS and row["readable"]} - {own}
        for schema in [own, *sorted(others)]:
            name = names.get(schema, schema)
            found.streams += _streams(history, schema, name)
            changes = history.rows(schema, CHANGES, _CHANGES)
            found.schema_changes += [SchemaChange(source=name, **row) for row in changes]
        found.schema_changes.sort(key=lambda change: change.changed_at, reverse=True)
        found.models = [ModelEntry(**row) for row in history.rows(warehouse.marts, MODEL_RUNS, _MODELS)]
        found.notes = history.notes
        if not found.streams and not found.notes:
            found.notes = [f"Nothing has been loaded into the schema {own} yet: run the pipeline."]
        return found


@contextmanager
def _reading(warehouse: WarehouseSettings, monitor: Monitor) -> Iterator[psycopg.Connection[dict[str, Any]]]:
    try:
        connection = psycopg.connect(
            **parameters(warehouse, monitor),
            connect_timeout=_CONNECT_TIMEOUT_S,
            application_name="tidemark streams",
            client_encoding="UTF8",
            autocommit=True,
            # a pooler may change the session, and the next one does not have the prepared statement
            prepare_threshold=None,
            row_factory=dict_row,
        )
    except psycopg.OperationalError as error:
        reason = _reason(error)
        login = any(word in reason for word in ("password", "authentication", "role", "pg_hba"))
        variables = "TIDEMARK_MONITOR_USER and _PASSWORD" if login else "TARGET_POSTGRES_HOST, _PORT and _DATABASE"
        msg = f"The warehouse {warehouse} can't be reached as {monitor.user}: {reason}. See {variables}."
        raise HistoryError(msg) from error
    try:
        with connection, connection.transaction():
            connection.execute(_READING)
            yield connection
    except (errors.QueryCanceled, errors.LockNotAvailable) as error:
        raise HistoryError(f"The warehouse {warehouse} did not answer in time: {_reason(error)}.") from error
    except psycopg.Error as error:
        raise HistoryError(f"The warehouse {warehouse} could not answer: {_reason(error)}.") from error


def _reason(error: psycopg.Error) -> str:
    # libpq's message has several lines, with the reason first
    reason = (str(error).strip().splitlines() or ["it gave no reason"])[0]
    for noise in ("connection failed: ", "FATAL:  ", "ERROR:  "):
        reason = reason.replace(noise, "")
    return reason.rstrip(".")


class _HistoryTables:
    """Queries the tables that exist, and notes the ones that can't be read."""

    def __init__(
        self, connection: psycopg.Connection[dict[str, Any]], tables: dict[tuple[str, str], bool], role: str
    ) -> None:
        self._connection = connection
        self._tables = tables
        self._role = role
        self.notes: list[str] = []

    def now(self) -> Any:
        row = self._connection.execute("select now()").fetchone()
        assert row
        return row["now"]

    def rows(self, schema: str, table: str, query: LiteralString) -> Rows:
        """Return the query's rows from a table; no rows if the table is missing or this role may not read it."""
        readable = self._tables.get((schema, table))
        if readable is False:
            self.notes.append(
                f"The role {self._role} may not read {schema}.{table}: in the warehouse, run the SQL that "
                "`tidemark roles warehouse` prints."
            )
        if not readable:
            return []
        return self._connection.execute(sql.SQL(query).format(sql.Identifier(schema, table))).fetchall()


def _streams(history: _HistoryTables, schema: str, source: str) -> list[StreamEntry]:
    """Return the streams that were loaded into a schema, or were meant to be.

    A stream that moved to another database is shown as it is there.

    Args:
        source: the name of the source.
    """
    found: dict[tuple[str, str], StreamEntry] = {}

    def each(table: str, query: LiteralString) -> Iterator[tuple[StreamEntry, dict[str, Any]]]:
        for row in history.rows(schema, table, query):
            key = row["source"], row["stream"]
            if key not in found:
                found[key] = StreamEntry(source=source, database=key[0], stream=key[1], into=schema)
            yield found[key], row

    positions = {
        (row["source"], row["slot"]): (row["position"], row["lag_seconds"])
        for row in history.rows(schema, SLOTS, _SLOTS)
    }
    for stream, row in each(RUNS, _RUNS):
        stream.table = f"{schema}.{row['table_name']}"
        stream.lag_seconds = row["lag_seconds"]
        stream.runs.append(RunEntry(**row))
    for stream, row in each(STATE, _STATE):
        stream.table = f"{schema}.{row['table_name']}"
        stream.bookmark = row["bookmark"]
        # for a warehouse that keeps no run records
        stream.lag_seconds = stream.lag_seconds if stream.runs else row["lag_seconds"]
        stream.repair = row["repair"]
        if row["slot"]:
            stream.log = "loading" if row["is_loading"] else "following" if row["repair"] is None else "to be repaired"
            position = positions.get((stream.database, row["slot"]))
            if position and not row["is_loading"]:
                # a run may follow the log for hours, and its streams are as fresh as the slot
                stream.bookmark, stream.lag_seconds = position
        elif row["repair"] is not None:
            stream.log = "left the log"
    for stream, row in each(RECONCILES, _RECONCILES):
        stream.comparison = Comparison(**row)
    latest = {stream.stream: stream for stream in sorted(found.values(), key=_activity)}
    return sorted(latest.values(), key=lambda stream: stream.stream)


def _activity(stream: StreamEntry) -> tuple[float, float, float]:
    """Return what is larger for a stream that was read later, or compared later if it was not read."""
    started = stream.last.started_at.timestamp() if stream.last else 0.0
    lag = float("inf") if stream.lag_seconds is None else stream.lag_seconds
    return started, -lag, stream.comparison.compared_at.timestamp() if stream.comparison else 0.0
