"""The bookmark of a replication key that has an order but is not a timestamp, such as a number or a text.

A transaction gets values of such a key before it commits. Some values come from earlier transactions or from the
application's own clock, and some never come in order: sentinels, NaN, a restarted sequence. So the bookmark is not the
largest value. It is a value some rows below, seen at least a lookback ago, and never one that no later value exceeds.
"""

from __future__ import annotations

import re
import time
from dataclasses import replace
from datetime import timedelta
from decimal import Decimal, InvalidOperation
from typing import TYPE_CHECKING, Any

from psycopg2 import errors

from singer_postgres.core.errors import ReplicationKeyError
from singer_postgres.core.source import open_transactions, replication_key, sequences
from singer_postgres.core.sql_compat import DataError, literal, sql
from singer_postgres.tap.key_trail import KeyTrail

if TYPE_CHECKING:
    from collections.abc import Sequence as Several
    from datetime import datetime

    from psycopg2.extensions import connection as Connection  # noqa: N812

    from singer_postgres.core.notices import Notices
    from singer_postgres.core.source.open_transactions import OpenTransactions
    from singer_postgres.core.source.replication_key import ReplicationKey
    from singer_postgres.core.source.sequences import Sequence
    from singer_postgres.core.source.stream_query import StreamQuery
    from singer_postgres.tap.stream_plan import StreamPlan

# How many rows the bookmark stays below the largest value. Values that applications reserve in blocks, and sentinels
# that look like ordinary values, are within these rows. Each run reads them again, which takes milliseconds.
LAG_ROWS = 1000
# the same after a first load, when no value from a lookback ago is known; the next run reads these rows once more
FIRST_LAG_ROWS = 50_000
# distinct values of one key that no later value exceeds
_MOST_EXTREMES = 8
# entries of a trail; a transaction that stays open for days adds one a run
_MOST_SEEN = 64
# how long the first load waits for transactions that may still add smaller values; most take milliseconds
_PATIENCE_S = 2.0
_POLL_S = 0.05

_EXTREMES = {
    "smallint": {"32767"},
    "integer": {"2147483647"},
    "bigint": {"9223372036854775807"},
    "oid": {"4294967295"},
}
_INTEGERS = frozenset({"smallint", "integer", "bigint"})
# 9999, zzzz, ffffffff-ffff-ffff-ffff-ffffffffffff, 9999-12-31, 255.255.255.255
_FILLER = re.compile(
    r"(.)(?:\1|-){3,}|9{2,}\.9+|9999-12-31.*|255\.255\.255\.255(/32)?|2147483647|4294967295|9223372036854775807"
)


class _Values:
    """Queries the values of one key in its table, in their order."""

    def __init__(self, connection: Connection, selection: StreamQuery, key: ReplicationKey) -> None:
        self._connection = connection
        self._key = key
        self._table = sql.Identifier(selection.relation.schema, selection.relation.name)
        # qualified, because the bare name would be the query's output column, which is text
        self._name = sql.Identifier(selection.relation.name, key.column.name)
        self._where = [sql.SQL(f"({clause}\n)") for clause in selection.where]

    def _execute(self, select: sql.Composable, *conditions: sql.Composable) -> list[tuple[Any, ...]]:
        query = sql.SQL("SELECT {} FROM {} WHERE {}").format(
            select, self._table, sql.SQL(" AND ").join([*self._where, *conditions])
        )
        with self._connection.cursor() as cursor:
            cursor.execute(query)
            rows: list[tuple[Any, ...]] = cursor.fetchall()
        return rows

    def _compared(self, sign: str, value: str) -> sql.Composable:
        return sql.SQL(f"{{}} {sign} {{}}::{{}}").format(self._name, literal(value), sql.SQL(self._key.column.declared))

    def top(self, count: int, *limits: tuple[str, str]) -> list[str]:
        """Return the key values of the `count` largest rows as text, largest first; `limits` are signs and values.

        Raises:
            SingerPostgresError: values of this type have no order.
        """
        conditions = [sql.SQL("{} IS NOT NULL").format(self._name), *(self._compared(*limit) for limit in limits)]
        # not max(), because types such as uuid have an order but no max
        ordered = sql.SQL(" AND ").join(conditions) + sql.SQL(" ORDER BY {} DESC LIMIT {}").format(
            self._name, sql.Literal(count)
        )
        try:
            rows = self._execute(sql.SQL("{}::text").format(self._name), ordered)
        except errors.UndefinedFunction as error:
            column = self._key.column
            msg = (
                f"replication key {column.name} is of type {column.declared}, whose values have no order: choose a "
                "timestamp, or read the stream whole (replication-method: FULL_TABLE)."
            )
            raise ReplicationKeyError(msg) from error
        return [str(row[0]) for row in rows]

    def reach(self, start: str, *limits: tuple[str, str]) -> bool:
        """Return whether there is a value at or above `start`."""
        condition = [self._compared(*limit) for limit in (*limits, (">=", start))]
        return bool(self._execute(sql.SQL("1"), sql.SQL(" AND ").join(condition) + sql.SQL(" LIMIT 1")))


def bookmark(
    connection: Connection, plan: StreamPlan, selection: StreamQuery, key: ReplicationKey, notices: Notices
) -> tuple[StreamPlan, str | None]:
    """Return the plan and the next bookmark. The plan may start again from the beginning.

    The result holds for snapshots that are taken after this. The connection is in autocommit.

    Raises:
        SingerPostgresError: the column can't be a replication key.
    """
    now = open_transactions.iso(_clock(connection))
    values = _Values(connection, selection, key)
    top, limits = _within_reach(values, plan, key, notices)
    # after the values, so that the sequence has already given out each of them
    sequence = sequences.filling(connection, selection.relation.oid, key.column.name)
    if sequence is not None:
        _look_at(sequence, plan, key, notices)
        if top and _is_beyond(top[0], sequence, plan, key, notices):
            limits = (("<=", str(sequence.last)),)
            top = values.top(LAG_ROWS, *limits)
    files = _files(sequence, selection)
    if plan.bookmark is not None and (why := _why_anew(values, plan, sequence, files, top, limits)):
        notices.warn(plan.stream, f"Reading {plan.stream} from its beginning: {why}.")
        plan = replace(plan, bookmark=None, trail=None)
    safe = _some_rows_below(values, top, limits, LAG_ROWS)
    seen = ((now, safe),) if safe is not None else ()
    if plan.bookmark is None:
        ended = _older_transactions_ended(connection, plan, key, notices)
        end = _some_rows_below(values, top, limits, FIRST_LAG_ROWS) if ended else None
        return replace(plan, trail=KeyTrail(seen, files)), end
    limit = _limit(connection, key, notices)
    seen = (*(plan.trail or KeyTrail()).seen, *seen)
    due = [number for number, (at, _) in enumerate(seen) if at <= limit]
    end = seen[due[-1]][1] if due else plan.bookmark
    pending = seen[due[-1] + 1 :] if due else seen
    if len(pending) > _MOST_SEEN:
        pending = (*pending[:-1:2], pending[-1])
    return replace(plan, trail=KeyTrail(pending, files)), end


def _clock(connection: Connection) -> datetime:
    with connection.cursor() as cursor:
        cursor.execute("select clock_timestamp()")
        row = cursor.fetchone()
    assert row
    now: datetime = row[0]
    return now


def _within_reach(
    values: _Values, plan: StreamPlan, key: ReplicationKey, notices: Notices
) -> tuple[list[str], tuple[tuple[str, str], ...]]:
    """Return the largest values below those that no later value exceeds, and that limit."""
    limits: tuple[tuple[str, str], ...] = ()
    top = values.top(LAG_ROWS)
    extremes: list[str] = []
    while top and len(extremes) < _MOST_EXTREMES and _nothing_gets_past(top, key):
        extremes.append(top[0])
        limits = (("<", top[0]),)
        top = values.top(LAG_ROWS, *limits)
    if extremes:
        notices.warn(
            f"extremes of {plan.stream}",
            f"{key.column.name} of {plan.stream} holds {', '.join(extremes)}, which no later value exceeds: the "
            "bookmark stays below, and each run reads these rows again. To end that, give them a value in order.",
        )
    return top, limits


def _nothing_gets_past(top: Several[str], key: ReplicationKey) -> bool:
    """Return whether the first of `top`, in descending order, is its type's maximum or a filler far above the rest."""
    value, type_ = top[0], (key.column.target_type.type or "").partition("(")[0]
    if type_ in {"real", "double precision", "numeric", "interval"} and value.lower() in {"nan", "infinity"}:
        return True
    if value in _EXTREMES.get(type_, ()):
        return True
    if not _FILLER.fullmatch(value):
        return False
    other = next((other for other in top if other != value), None)
    try:
        # 9999 after 9998 is an ordinary value
        return other is not None and Decimal(other) < Decimal(value) * Decimal("0.9")
    except InvalidOperation:
        return other is not None


def _some_rows_below(values: _Values, top: Several[str], limits: tuple[tuple[str, str], ...], rows: int) -> str | None:
    """Return the value some rows below the largest. Rows that share the largest value count as one row."""
    if not top:
        return None
    if len(top) < LAG_ROWS or (rows == LAG_ROWS and (top[0] != top[-1] or rows == 1)):
        return top[-1]
    below = values.top(rows, *limits, ("<", top[0]))
    return below[-1] if below else top[0]


def _files(sequence: Sequence | None, selection: StreamQuery) -> tuple[int, int]:
    relation = selection.relation
    # partitions come and go
    own = relation.leaves[0].relfilenode if relation.kind == "r" and len(relation.leaves) == 1 else 0
    return sequence.filenode if sequence is not None else 0, own


def _look_at(sequence: Sequence, plan: StreamPlan, key: ReplicationKey, notices: Notices) -> None:
    """Warn about a sequence whose values may make the key miss rows.

    Raises:
        SingerPostgresError: the sequence makes the key unusable.
    """
    sequences.refuse_down(sequence, plan.stream, key.column.name)
    if sequence.cache > 1:
        notices.warn(
            sequence.name,
            f"{sequence.name}, which fills {key.column.name} of {plan.stream}, reserves values in blocks: one that is "
            f"used late may be missed. Change it with: ALTER SEQUENCE {sequence.name} CACHE 1;",
        )


def _is_beyond(largest: str, sequence: Sequence, plan: StreamPlan, key: ReplicationKey, notices: Notices) -> bool:
    """Return whether rows have values that the sequence has not reached yet."""
    if sequence.last is None or key.column.target_type.type not in _INTEGERS or int(largest) <= sequence.last:
        return False
    notices.warn(
        sequence.name,
        f"{key.column.name} of {plan.stream} goes up to {largest}, and {sequence.name}, which fills it, has only "
        f"reached {sequence.last}: the bookmark stays below that, and each run reads the rows beyond it again. To give "
        f"new rows larger values: SELECT setval('{sequence.name}', {largest});",
    )
    return True


def _why_anew(  # noqa: PLR0911, PLR0913, PLR0917 - one return for each reason
    values: _Values,
    plan: StreamPlan,
    sequence: Sequence | None,
    files: tuple[int, int],
    top: Several[str],
    limits: tuple[tuple[str, str], ...],
) -> str | None:
    """Return why there may be unread rows below the bookmark; None if there is no reason."""
    start, known = plan.bookmark, (plan.trail or KeyTrail()).files
    assert start is not None
    if sequence is not None and known[0] and known[0] != files[0]:
        return f"{sequence.name}, which fills its replication key, was restarted or altered"
    if known[1] and files[1] and known[1] != files[1]:
        return "the table was truncated or rewritten"
    try:
        if values.reach(start, *limits):
            return None
    except DataError:
        return f"its bookmark {start!r} is no longer a value of its replication key's type"
    if (
        sequence is not None
        and sequence.last is not None
        and re.fullmatch(r"-?\d+", start)
        and sequence.last >= int(start)
    ):
        # the newest rows were deleted
        return None
    if not top:
        return f"its bookmark is {start}, and its replication key no longer has any value"
    return f"its largest value, {top[0]}, is below the bookmark, {start}, so its values may have restarted"


def _older_transactions_ended(connection: Connection, plan: StreamPlan, key: ReplicationKey, notices: Notices) -> bool:
    """Return whether all transactions that may add values below the bookmark of a first load have ended."""
    found, ended = outlived(connection)
    if found.blind_because:
        notices.warn(
            "blind key", f"Rows of {plan.stream} that commit late may be missed, because {found.blind_because}"
        )
    if not ended:
        since = open_transactions.iso(found.prepared[1] if found.prepared else found.oldest_start)
        waits_for = found.holder or f"prepared transaction {found.prepared and found.prepared[0]!r}"
        notices.warn(
            "holder",
            f"The bookmark of {plan.stream} stays at the beginning until {waits_for} ends, open since {since}: "
            f"it may still add smaller values of {key.column.name}.",
        )
    return ended


def _limit(connection: Connection, key: ReplicationKey, notices: Notices) -> str:
    """Return an instant. All values assigned before it are committed by now, or never will be."""
    found, lookback = open_transactions.read(connection), key.lookback
    replication_key.warn_about_holders(found, lookback, notices)
    usual = max(lookback.usual, timedelta(seconds=replication_key.LOOKBACK_FLOOR_S))
    return open_transactions.iso(found.settled(None, longest=lookback.longest) - usual)


def outlived(connection: Connection) -> tuple[OpenTransactions, bool]:
    """Wait a short while for all transactions that are open now to end.

    Returns:
        The transactions open after the wait, and whether all that were open before it have ended.
    """
    asked = _clock(connection)
    until = time.monotonic() + _PATIENCE_S
    while True:
        found = open_transactions.read(connection)
        ended = found.oldest_start >= asked and not found.prepared
        if ended or found.blind_because or time.monotonic() > until:
            return found, ended or bool(found.blind_because and not found.prepared)
        time.sleep(_POLL_S)
