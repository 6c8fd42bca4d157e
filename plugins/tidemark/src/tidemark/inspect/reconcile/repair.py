"""Copies rows that differ from the source into the warehouse, and marks rows that the source lacks as deleted."""

from __future__ import annotations

import time
import uuid
from datetime import UTC
from typing import TYPE_CHECKING, Any

from psycopg import sql

from singer_postgres.core import widening
from singer_postgres.core.warehouse import manual_changes, merge, partitions, schema_changes, tables
from singer_postgres.core.warehouse.metadata_columns import Stamp
from singer_postgres.core.warehouse.row_counts import RowCounts
from singer_postgres.core.warehouse.run_history import StreamRun
from tidemark.errors import TidemarkError
from tidemark.inspect.reconcile.hash_queries import pieces

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    import psycopg

    from singer_postgres.core.wire import Table
    from tidemark.inspect.reconcile.compare import Difference
    from tidemark.inspect.reconcile.hash_queries import ComparedStream, Key

    Connection = psycopg.Connection[Any]

# a repair deletes no history
_FOR_EVER_DAYS = 36_500


def refuse_deletes(stream: str, found: Difference, *, allowed_percent: float, command: str) -> None:
    """Refuse a repair that would mark an unlikely number of rows as deleted.

    Args:
        command: what repairs the stream, with a place for its name.

    Raises:
        TidemarkError: it would.
    """
    there, here = found.rows
    if not found.extra:
        return
    percent = 100 * len(found.extra) / max(here, 1)
    if (there == 0 and allowed_percent < 100) or percent > allowed_percent:  # noqa: PLR2004 - percent
        why = "the source has no rows" if there == 0 else f"that is {percent:.1f} % of its {here:,} rows"
        raise TidemarkError(
            f"{stream}: {len(found.extra):,} rows would be marked as deleted, and {why}; nothing was changed. If that "
            f"is right: `{command.format(stream)} --allow-deletes {min(100, int(percent) + 1)}%`."
        )


def repair(  # noqa: PLR0913 - both databases, the stream in both, and the differences
    source: Connection, warehouse: Connection, pair: ComparedStream, table: Table, *, stream: str, found: Difference
) -> RowCounts:
    """Repair all rows of `found` in one transaction, and return what was written.

    The caller must hold the stream's lock.
    """
    row = source.execute("select statement_timestamp()").fetchone()
    assert row
    at: datetime = row[0].astimezone(UTC)
    now_ms = round(time.time() * 1000)
    stamp = Stamp(at.isoformat(), now_ms, now_ms)
    run = StreamRun(
        pair.schema,
        table.source,
        stream,
        f"reconcile-{uuid.uuid4()}",
        table.name,
        _FOR_EVER_DAYS,
        sync_started_at=now_ms,
    )
    run.ensure(warehouse)
    written = RowCounts()
    with warehouse.transaction():
        run.begin(warehouse, bookmark=None)
        stage = _stage(warehouse, pair, table)
        for keys in pieces(sorted([*found.missing, *found.different])):
            _copy(source, warehouse, pair, table, keys)
        rows, found_as = _cast(stage, pair, table), partitions.find(warehouse, pair.schema, table.name)
        within = partitions.make_room(warehouse, pair.schema, table.name, rows, partitions=found_as)
        upsert = merge.upsert(
            rows,
            pair.name,
            columns=tables.data_columns(table),
            key=table.key,
            stamp=stamp,
            guarded=False,
            within=within,
        )
        into = merge.Into(pair.name, table.key, found_as is not None, within)
        counted = warehouse.execute(merge.counted(upsert, into)).fetchone()
        assert counted
        deleted = sum(_delete(warehouse, pair, keys) for keys in pieces(found.extra))
        written = RowCounts(
            read=len(found.missing) + len(found.different), inserted=counted[0], updated=counted[1], deleted=deleted
        )
        run.count(warehouse, written)
        run.end(warehouse, extracted_at=stamp.extracted_at, whole=False)
    return written


def obstacle(warehouse: Connection, pair: ComparedStream, table: Table) -> str:
    """Return why written rows still differ from the source; empty if unknown."""
    name = f"{pair.schema}.{table.name}"
    wanted = tables.types_here(warehouse, table)
    cut = [column for column in wanted if not widening.holds(pair.raw_types[column], wanted[column])]
    cut = [column for column in cut if pair.raw_types[column] != wanted[column]]
    if cut:
        each = ", ".join(f"{column} is {pair.raw_types[column]} and in the source {wanted[column]}" for column in cut)
        return f"in {name}, {each}. Correct it with {schema_changes.rewind(table)}"
    if names := manual_changes.triggers(warehouse, pair.schema, table.name):
        quoted = sql.Identifier(names[0]).as_string()
        return f"{name} has a trigger of its own. ALTER TABLE {pair.name.as_string()} DISABLE TRIGGER {quoted};"
    return ""


def _stage(warehouse: Connection, pair: ComparedStream, table: Table) -> sql.Composable:
    types = tables.types_here(warehouse, table)
    warehouse.execute(
        sql.SQL("CREATE TEMPORARY TABLE tidemark_repair ({}) ON COMMIT DROP").format(tables.definitions(types))
    )
    if missing := types.keys() - pair.raw_types.keys():
        raise TidemarkError(f"{pair.schema}.{table.name} has no {', '.join(missing)}; run the pipeline first.")
    return sql.Identifier("pg_temp", "tidemark_repair")


def _copy(source: Connection, warehouse: Connection, pair: ComparedStream, table: Table, keys: Sequence[Key]) -> None:
    """Copy rows from the source into the temporary table."""
    read = sql.SQL("COPY ({}) TO STDOUT").format(pair.rows_of(keys))
    write = sql.SQL("COPY pg_temp.tidemark_repair ({}) FROM STDIN").format(merge.names(tables.data_columns(table)))
    with source.cursor() as there, warehouse.cursor() as here, there.copy(read) as reader, here.copy(write) as writer:
        for piece in reader:
            writer.write(piece)


def _cast(stage: sql.Composable, pair: ComparedStream, table: Table) -> sql.Composable:
    """Return a query of the temporary table's rows, with the types of the warehouse's columns."""
    fields = [
        sql.SQL("{0}::{1} AS {0}").format(sql.Identifier(name), sql.SQL(pair.raw_types[name]))
        for name in tables.data_columns(table)
    ]
    return sql.SQL("(SELECT {} FROM {})").format(sql.SQL(", ").join(fields), stage)


def _delete(warehouse: Connection, pair: ComparedStream, keys: Sequence[Key]) -> int:
    """Mark rows as deleted, as a FULL_TABLE load does."""
    return warehouse.execute(
        sql.SQL(
            "UPDATE {} SET _sdc_deleted_at = now(), _tidemark_loaded_xid = pg_current_xact_id() "
            "WHERE _sdc_deleted_at IS NULL AND {}"
        ).format(pair.name, pair.raw_keys(keys))
    ).rowcount
