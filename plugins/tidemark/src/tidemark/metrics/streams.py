"""What the warehouse knows of each stream, of its locks, and of the versions of Tidemark's tables."""

from __future__ import annotations

import statistics
from typing import TYPE_CHECKING, Any

from psycopg import sql

from singer_postgres.core import advisory_locks
from singer_postgres.core.warehouse import (
    reconcile_history,
    rejects,
    run_history,
    slot_table,
    state_table,
    stream_totals,
)
from singer_postgres.core.warehouse.system_tables import version_of
from tidemark.inspect import log_status
from tidemark.metrics import catalogue, table_sizes

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import LiteralString

    import psycopg

    from tidemark.metrics.samples import Samples

    Connection = psycopg.Connection[dict[str, Any]]

# how many of a stream's latest runs to look at, so that a scrape takes the same time whatever the history keeps
_LATEST = 60
_USUAL = 20
_USUAL_LEAST = 5
_TABLES = """
    select n.nspname as schema, c.relname as name, obj_description(c.oid, 'pg_class') as comment,
        has_schema_privilege(n.oid, 'usage') and has_table_privilege(c.oid, 'select') as readable
    from pg_catalog.pg_class c join pg_catalog.pg_namespace n on n.oid = c.relnamespace
    where c.relkind = 'r' and starts_with(c.relname, '_tidemark_') and not starts_with(c.relname, '_tidemark_stage_')
    order by 1, 2
"""
_TOTALS = """
    select *, extract(epoch from succeeded_at)::float8 as last_success,
        extract(epoch from now() - extracted_at)::float8 as lag,
        (select sum(value::bigint) from jsonb_each_text(failed)) as runs_failed
    from {totals}
"""
# A repair or a backfill reads only some rows, so it is no run of the stream. A backfill has a bookmark and no
# extracted_at; runs without both are running, have failed, or loaded records.
_RUNS = """
    select names.source, names.stream, latest.*, ended.*, succeeded.*
    from {totals} names
    cross join lateral (
        select array_agg(run order by (run).started_at desc) as runs from (
            select run from {runs} run
            where run.source = names.source and run.stream = names.stream and run_id not like 'reconcile-%'
                and (outcome <> 'succeeded' or extracted_at is not null or bookmark_after is null)
            order by started_at desc limit {latest}
        ) run
    ) found
    left join lateral (
        select table_name, extract(epoch from started_at)::float8 as started,
            case when outcome = 'running' then rows_read end as running_rows
        from unnest(found.runs) limit 1
    ) latest on true
    left join lateral (
        select outcome, coalesce(error_code, '') as code from unnest(found.runs) where outcome <> 'running' limit 1
    ) ended on true
    left join lateral (
        select extract(epoch from ended_at - started_at)::float8 as seconds, seconds_reading, seconds_copying,
            seconds_merging, seconds_paused, held_by, held_seconds, snapshot_seconds, source_bytes, source_wal_bytes,
            source_buffers_hit, source_buffers_read,
            array_agg(rows_inserted + rows_updated + rows_deleted) over
                (order by started_at desc rows between current row and unbounded following) as written
        from unnest(found.runs) where outcome = 'succeeded' order by started_at desc limit 1
    ) succeeded on true
"""
_RECONCILES = """
    select names.source, names.stream, found.* from {totals} names cross join lateral (
        select extract(epoch from compared_at)::float8 as compared, error, missing, different, extra, repaired
        from {reconciles} found
        where found.source = names.source and found.stream = names.stream
        order by compared_at desc limit 1
    ) found
"""
# nothing deletes rejects, so a part of very many has to do
_REJECTS = "select stream, count(*) from (select stream from {rejects} limit 100000) part group by stream"


class SystemTables:
    """Tidemark's tables in the warehouse that this role may read."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._found = connection.execute(_TABLES).fetchall()

    def schemas(self, table: str) -> list[str]:
        """Return the schemas that have this table."""
        return [row["schema"] for row in self._found if row["name"] == table and row["readable"]]

    def version(self, schema: str, table: str) -> int:
        """Return the table's version; 0 if it is missing or can't be read."""
        for row in self._found:
            if (row["schema"], row["name"]) == (schema, table) and row["readable"]:
                return version_of(row["comment"])
        return 0

    def tell(self, samples: Samples) -> None:
        """Add the tables' versions."""
        for row in self._found:
            if row["readable"]:
                samples.add(
                    catalogue.TABLE_VERSION, self.version(row["schema"], row["name"]), row["schema"], row["name"]
                )


def collect(connection: Connection, tables: SystemTables, samples: Samples) -> list[tuple[str, str]]:
    """Add what is known of each stream. Return the sources and streams. Sources are named by their schemas here."""
    held = advisory_locks.held(connection)
    found: list[tuple[str, str]] = []
    for schema in tables.schemas(stream_totals.TABLE.name):
        samples.add(catalogue.SOURCE, 1, schema, schema)
        names: dict[str, sql.Composable] = {
            "totals": sql.Identifier(schema, stream_totals.TABLE.name),
            "runs": sql.Identifier(schema, run_history.TABLE.name),
            "rejects": sql.Identifier(schema, rejects.TABLE.name),
            "reconciles": sql.Identifier(schema, reconcile_history.TABLE.name),
            "latest": sql.Literal(_LATEST),
        }

        runs = _rows(connection, _RUNS, names) if _is_current(tables, schema) else []
        totals = _latest_of_each(_rows(connection, _TOTALS, names), runs)
        waiting = {}
        if tables.version(schema, rejects.TABLE.name):
            waiting = {row["stream"]: row["count"] for row in _rows(connection, _REJECTS, names)}
        for stream, row in totals.items():
            samples.add(catalogue.STREAM_REJECTS, waiting.get(stream, 0), schema, stream)
            found.append((schema, stream))
            _tell_totals(samples, (schema, stream), row)
        followed = _tell_log(connection, tables, schema, totals, samples)
        for stream, row in totals.items():
            # a run may follow the log for hours, and its stream is as fresh as its slot
            lag = followed.get((row["source"], stream), row["lag"])
            samples.add(catalogue.STREAM_LAG, lag, schema, stream)
        has_states = tables.version(schema, state_table.TABLE.name) > 0
        of_streams = {(row["source"], stream) for stream, row in totals.items()} if has_states else set()
        table_sizes.collect(connection, schema, of_streams, samples)
        for row in _of(totals, runs):
            locked = None
            if row["table_name"] is not None:
                locked = advisory_locks.key("tidemark load", schema, row["table_name"]) in held
            samples.add(catalogue.STREAM_LOCKED, locked, schema, row["stream"])
            # a killed run can't record its end
            _tell_runs(samples, (schema, row["stream"]), row if locked else {**row, "running_rows": None})
        if tables.version(schema, reconcile_history.TABLE.name):
            for row in _of(totals, _rows(connection, _RECONCILES, names)):
                _tell_reconcile(samples, (schema, row["stream"]), row)
    return found


def _tell_log(
    connection: Connection, tables: SystemTables, schema: str, totals: dict[str, dict[str, Any]], samples: Samples
) -> dict[tuple[str, str], float]:
    """Add how LOG_BASED streams stand. Return the lag of those that follow a slot, by database and stream."""
    if not all(tables.version(schema, each.TABLE.name) for each in (slot_table, state_table)):
        return {}
    lags: dict[tuple[str, str], float] = {}
    for row in log_status.slot_rows(connection, schema):
        # those that were loaded last come first
        if row["slot"] not in {slot for _, slot in lags}:
            samples.add(catalogue.SLOT_LAG_SECONDS, row["lag_seconds"], schema, row["slot"])
            samples.add(catalogue.SLOT_LAG_BYTES, row["behind_bytes"], schema, row["slot"])
            samples.add(catalogue.SLOT_RETAINED_BYTES, row["retained_bytes"], schema, row["slot"])
        if row["lag_seconds"] is not None:
            lags[row["source"], row["slot"]] = row["lag_seconds"]
    found = {}
    for row in log_status.stream_rows(connection, schema):
        stream = row["stream"]
        if stream in totals and totals[stream]["source"] == row["source"]:
            state = log_status.state_of(row["slot"], row["repair"], is_loading=row["is_loading"])
            samples.add(catalogue.STREAM_LOG, 1, schema, stream, state.value)
            if state in log_status.FRESH and (row["source"], row["slot"]) in lags:
                found[row["source"], stream] = lags[row["source"], row["slot"]]
    return found


def _rows(connection: Connection, query: LiteralString, names: dict[str, sql.Composable]) -> list[dict[str, Any]]:
    return connection.execute(sql.SQL(query).format(**names)).fetchall()


def bookmarks(connection: Connection, tables: SystemTables) -> dict[tuple[str, str], str | None]:
    """Return the warehouse's bookmark of each stream, by source and stream."""
    found: dict[tuple[str, str], str | None] = {}
    for schema in tables.schemas(state_table.TABLE.name):
        query = sql.SQL("select stream, bookmark from {} order by loaded_at").format(
            sql.Identifier(schema, state_table.TABLE.name)
        )
        found |= {(schema, row["stream"]): row["bookmark"] for row in connection.execute(query).fetchall()}
    return found


def _is_current(tables: SystemTables, schema: str) -> bool:
    """Return whether a run of this release has brought the history up to date."""
    return tables.version(schema, run_history.TABLE.name) >= len(run_history.TABLE.steps)


def _latest_of_each(totals: list[dict[str, Any]], runs: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Return the totals by stream; of a stream that moved to another database, those of the latest activity."""
    started = {(row["source"], row["stream"]): row["started"] or 0 for row in runs}

    def activity(row: dict[str, Any]) -> float:
        return max(row["last_success"] or 0, started.get((row["source"], row["stream"]), 0))

    return {row["stream"]: row for row in sorted(totals, key=activity)}


def _of(totals: dict[str, dict[str, Any]], rows: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Yield the rows of the databases that the streams last came from: a stream may have moved to another one."""
    for row in rows:
        if totals[row["stream"]]["source"] == row["source"]:
            yield row


def _tell_totals(samples: Samples, stream: tuple[str, str], row: dict[str, Any]) -> None:
    samples.add(catalogue.STREAM_LAST_SUCCESS, row["last_success"], *stream)
    written = {name: row[f"rows_{name}"] for name in ("inserted", "updated", "deleted", "rejected")}
    unchanged = row["rows_read"] - row["rows_inserted"] - row["rows_updated"] - row["rows_rejected"]
    for operation, count in {**written, "unchanged": max(unchanged, 0)}.items():
        samples.add(catalogue.STREAM_ROWS, count, *stream, operation)
    samples.add(catalogue.STREAM_BYTES, row["bytes"], *stream)
    samples.add(catalogue.STREAM_RUNS, row["succeeded"], *stream, "succeeded")
    samples.add(catalogue.STREAM_RUNS, row["runs_failed"] or 0, *stream, "failed")
    samples.add(catalogue.STREAM_RUNS, row["killed"], *stream, "killed")
    for code, count in row["failed"].items():
        samples.add(catalogue.STREAM_FAILURES, count, *stream, code)
    samples.add(catalogue.STREAM_RETRIES, row["retries"], *stream)
    samples.add(catalogue.STREAM_SCHEMA_CHANGES, row["schema_changes"], *stream)


def _tell_runs(samples: Samples, stream: tuple[str, str], row: dict[str, Any]) -> None:
    if row["outcome"] is not None:
        samples.add(catalogue.STREAM_LAST_RUN, 1, *stream, row["outcome"], row["code"])
    samples.add(catalogue.STREAM_LAST_RUN_STARTED, row["started"], *stream)
    samples.add(catalogue.STREAM_RUNNING_ROWS, row["running_rows"], *stream)
    for step, column in (
        ("whole", "seconds"),
        ("read", "seconds_reading"),
        ("copy", "seconds_copying"),
        ("merge", "seconds_merging"),
        ("paused", "seconds_paused"),
    ):
        samples.add(catalogue.STREAM_LAST_RUN_SECONDS, row[column], *stream, step)
    samples.add(catalogue.STREAM_SNAPSHOT, row["snapshot_seconds"], *stream)
    samples.add(catalogue.STREAM_SOURCE_BYTES, row["source_bytes"], *stream, "sent")
    samples.add(catalogue.STREAM_SOURCE_BYTES, row["source_wal_bytes"], *stream, "wal")
    samples.add(catalogue.STREAM_SOURCE_PAGES, row["source_buffers_hit"], *stream, "hit")
    samples.add(catalogue.STREAM_SOURCE_PAGES, row["source_buffers_read"], *stream, "read")
    if row["seconds"] is not None:
        samples.add(catalogue.STREAM_HELD, row["held_seconds"] or 0, *stream, row["held_by"] or "nothing")
    last, *before = row["written"] or [None]
    samples.add(catalogue.STREAM_LAST_RUN_ROWS, last, *stream)
    if len(before) >= _USUAL_LEAST:
        samples.add(catalogue.STREAM_USUAL_ROWS, statistics.median(before[:_USUAL]), *stream)


def _tell_reconcile(samples: Samples, stream: tuple[str, str], row: dict[str, Any]) -> None:
    samples.add(catalogue.STREAM_COMPARED, row["compared"], *stream)
    samples.add(catalogue.STREAM_COMPARED_OK, row["error"] is None, *stream)
    if row["error"] is None:
        found = {name: row[name] for name in ("missing", "different", "extra")}
        left = sum(found.values()) > (row["repaired"] or 0)
        for difference, rows in found.items():
            samples.add(catalogue.STREAM_DIFFERENCES, rows if left else 0, *stream, difference)
