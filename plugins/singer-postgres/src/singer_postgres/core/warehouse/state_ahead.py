"""Refuses state that is ahead of the warehouse: the run would begin after rows that the warehouse does not have."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from singer_postgres.core.bookmark_order import has_known_order
from singer_postgres.core.errors import ClockBackError, NotLoadedYetError, StateAheadError
from singer_postgres.core.sql_compat import sql
from singer_postgres.core.warehouse import other_source, run_history
from singer_postgres.core.warehouse.state_table import TABLE, LoadedState

if TYPE_CHECKING:
    from collections.abc import Sequence

    import psycopg

    from singer_postgres.core.warehouse.state_table import StateTable
    from singer_postgres.core.wire import BatchOrigin, BlockRange, Table


def refuse(  # noqa: PLR0913 - each argument has a name
    state: StateTable,
    connection: psycopg.Connection[Any],
    stream: str,
    table: Table,
    origin: BatchOrigin,
    *,
    empty: bool,
) -> str | None:
    """Refuse a stream that begins after the rows that the warehouse holds.

    Args:
        origin: how the tap reads the stream in this run.
        empty: the stream's table has no rows.

    Returns:
        The bookmark up to which the warehouse has all rows.

    Raises:
        SingerPostgresError: rows would be missed, or the table belongs to another stream.
    """
    rows = connection.execute(
        sql.SQL(
            "SELECT source, stream, extracted_at > %s::timestamptz, extracted_at::text FROM {} WHERE table_name = %s"
        ).format(state.in_statement),
        [origin.snapshot_at or None, table.name],
    ).fetchall()
    others = {row[:2]: row[2:] for row in rows}
    clock_went_back, was = others.pop((table.source, stream), (False, None))
    if clock_went_back:
        raise ClockBackError(_clock_went_back(state.schema, stream, table, origin, was))
    held = (
        state.loaded_state(connection, table.source, stream).get(stream, LoadedState(table.name)).in_table(empty=empty)
    )
    if origin.backfill and held.bookmark is None:
        msg = (
            f"{stream} is to be backfilled, and {state.schema}.{table.name} does not hold all of it up to a "
            "bookmark yet: run the pipeline without `backfill` first."
        )
        raise NotLoadedYetError(msg)
    other_source.refuse_other_rights(state.schema, stream, table, others)
    missed = rows_missed(state, connection, table.source, stream, held, origin.start, origin.resumed, origin.end)
    if not missed and not empty:
        other_source.refuse_others(state.schema, stream, table, others)
    if missed:
        said = f"up to {origin.start}" if origin.start else "in part"
        holds = f"rows up to {held.bookmark}" if held.bookmark else "no rows of this source"
        msg = (
            f"State says that {stream} was loaded {said}, and {state.schema}.{table.name} holds {holds}: {missed} "
            f"would be missed. Set the state back: `tidemark state rewind {stream}`; or, outside Tidemark's "
            "project, read all rows again, which doubles none: `meltano run --full-refresh`."
        )
        raise StateAheadError(msg)
    return held.bookmark


def rows_missed(  # noqa: PLR0913, PLR0917 - what is here, and what is read
    state: StateTable,
    connection: psycopg.Connection[Any],
    source: str,
    stream: str,
    held: LoadedState,
    start: str | None,
    resumed: Sequence[BlockRange] = (),
    end: str | None = None,
) -> str | None:
    """Say which rows a run from `start` to `end` would miss; None if it misses nothing.

    Only the source can order two text bookmarks. If `start` was the bookmark of an earlier run, it was passed.
    """
    if (
        start is not None
        and held.bookmark is not None
        and start in past_bookmarks(state, connection, source, stream, start)
    ):
        start = held.bookmark
    return held.misses(start, resumed, end)


def past_bookmarks(
    state: StateTable, connection: psycopg.Connection[Any], source: str, stream: str, bookmark: str
) -> frozenset[str]:
    """Return the earlier bookmarks of a stream; an empty set if `bookmark` is a number or an instant."""
    if has_known_order(bookmark):
        return frozenset()
    runs = sql.Identifier(state.schema, run_history.TABLE.name)
    there = connection.execute("SELECT to_regclass(%s)", [runs.as_string()]).fetchone()
    if not there or there[0] is None:
        return frozenset()
    query = "SELECT DISTINCT bookmark_after FROM {} WHERE source = {} AND stream = {} AND outcome = 'succeeded'"
    rows = connection.execute(sql.SQL(query).format(runs, sql.Literal(source), sql.Literal(stream))).fetchall()
    return frozenset(row[0] for row in rows if row[0] is not None)


def _clock_went_back(schema: str, stream: str, table: Table, origin: BatchOrigin, was: str) -> str:
    # the merge would take rows with an older instant for a replay, and skip them
    now = origin.snapshot_at
    fix = (
        f"UPDATE {schema}.{table.name} SET _sdc_extracted_at = '{now}' WHERE _sdc_extracted_at > '{now}'; "  # noqa: S608
        f"UPDATE {schema}.{TABLE.name} SET extracted_at = '{now}' WHERE stream = '{stream}';"
    )
    return (
        f"The source's clock went back: {stream} was read at {was}, and its clock shows {now} now. Wait until it "
        f"is past {was}; or, if the clock was wrong before, run in the warehouse: {fix}"
    )
