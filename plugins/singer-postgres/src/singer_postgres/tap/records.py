"""Reads a stream as records, for targets, stream maps and tests that need single rows."""

from __future__ import annotations

import logging
import time
from contextlib import ExitStack
from datetime import datetime
from typing import TYPE_CHECKING, Any

from psycopg2 import sql

from singer_postgres.core.errors import LockBusyError, TableChangedError, TypeUnsupportedError
from singer_postgres.core.sql_compat import literal
from singer_postgres.tap.locks import LockedError, Pause, ReadInterruptedError
from singer_postgres.tap.snapshots import ChangedError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from contextlib import AbstractContextManager

    from psycopg2.extensions import connection as Connection  # noqa: N812

    from singer_postgres.core.source.stream_query import StreamQuery
    from singer_postgres.tap.locks import Watch
    from singer_postgres.tap.read_ceiling import ReadCeiling
    from singer_postgres.tap.snapshots import Snapshot
    from singer_postgres.tap.stream_plan import StreamPlan
    from singer_postgres.tap.stream_planning import OpenStream

_LOGGER = logging.getLogger("tap-postgres")
# how often reading is interrupted for sessions that wait for the table
_MOST_YIELDS = 8
_FETCH_ROWS = 5_000


class Records:
    """A stream's rows, read under one snapshot. If another session waits for the table, a new snapshot follows.

    Attributes:
        first: the stream as first opened; its bookmark also holds for rows read later.
        last: the last row read.
        count: the number of rows read.
        extracted_at: the instant of the snapshot under which the last row was read.
    """

    first: OpenStream
    extracted_at: datetime

    def __init__(  # noqa: PLR0913 - each argument has a name
        self,
        open_stream: Callable[[StreamPlan], AbstractContextManager[OpenStream]],
        watch: Watch,
        plan: StreamPlan,
        *,
        properties: Mapping[str, Any],
        keyed: bool,
        limit: int | None,
        lock_timeout_s: float,
        ceiling: ReadCeiling | None = None,
    ) -> None:
        """Start with no row read.

        Args:
            properties: the stream's JSON schema, by column.
            keyed: the target knows the primary key, so a row that is read again replaces the earlier one.
            limit: the maximum number of rows.
            ceiling: how fast to read.
        """
        self._open_stream = open_stream
        self._watch = watch
        self._plan = plan
        self._properties = properties
        self._keyed = keyed
        self._limit = limit
        self._lock_timeout_s = lock_timeout_s
        self._ceiling = ceiling
        self.last: dict[str, Any] | None = None
        self.count = 0

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """Yield the rows, a few thousand in memory at a time.

        Raises:
            SingerPostgresError: a record can't represent a value, or sessions keep waiting for the table.
        """
        pause, yields = Pause(), 0
        while True:
            try:
                for rows in self._batches():
                    for row in rows:
                        self.last = row
                        self.count += 1
                        yield row
            except LockedError as error:
                pause.locked(self._plan.stream, str(error), limit_s=self._lock_timeout_s)
            except ChangedError as error:
                yields += 1
                self._require_another(yields, f"the table changed ({error})")
            except ReadInterruptedError as error:
                yields += 1
                pause.longer()
                self._require_another(yields, f"{error} waits for the table")
            else:
                return
            time.sleep(pause.left_s)

    def _require_another(self, yields: int, why: str) -> None:
        """Raise if reading can't resume.

        Raises:
            SingerPostgresError: rows would be loaded twice, or reading was interrupted too often.
        """
        what = f"Reading {self._plan.stream} was interrupted: {why}"
        if self.last is not None and not self._keyed:
            msg = (
                f"{what}. Without a primary key it can't resume, because rows would be loaded twice. Run this again "
                "when the table is free."
            )
            raise LockBusyError(msg)
        if yields > _MOST_YIELDS:
            msg = f"{what}, {yields} times. Run this again when the table is free."
            raise LockBusyError(msg)
        _LOGGER.info("Reading resumes: reason=%s", what)

    def _batches(self) -> Iterator[list[dict[str, Any]]]:
        with ExitStack() as stack:
            opened = stack.enter_context(self._open_stream(self._plan))
            snapshot = opened.snapshot
            assert snapshot
            self._note(opened, snapshot)
            reader = stack.enter_context(self._watch.over(snapshot.connection, snapshot.pid))
            stack.enter_context(snapshot.locked())
            for rows in _read(
                snapshot.connection,
                opened.selection,
                properties=self._properties,
                bound=self._rest(opened.bound),
                order_by=self._plan.replication_key,
                limit=self._limit,
            ):
                if len(rows) < _FETCH_ROWS:
                    # the target may be slow, and the table's lock is no longer needed
                    stack.close()
                yield rows
                if self._ceiling is not None:
                    # the driver does not tell how much it received
                    size = sum(len(str(value)) for row in rows for value in row.values())
                    self._ceiling.pause(size, is_over=reader.gave_way.is_set)

    def _note(self, opened: OpenStream, snapshot: Snapshot) -> None:
        self.extracted_at = datetime.fromisoformat(snapshot.at)
        if not hasattr(self, "first"):
            self.first = opened
        elif opened.selection.wire_columns() != self.first.selection.wire_columns():
            msg = f"{snapshot.relation} was altered while it was read; run this again."
            raise TableChangedError(msg)

    def _rest(self, bound: sql.Composable | None) -> sql.Composable | None:
        """Return the condition on the rows still to read. Rows come in the order of the replication key."""
        key = self._plan.replication_key
        value = self.last.get(key) if self.last and key else None
        if self._plan.method != "INCREMENTAL" or key is None or value is None:
            return bound
        rest = sql.SQL("{} >= {}").format(sql.Identifier(key), literal(value))
        return rest if bound is None else sql.SQL("{} AND {}").format(bound, rest)


def _read(  # noqa: PLR0913 - each is a part of one query
    connection: Connection,
    selection: StreamQuery,
    *,
    properties: Mapping[str, Any],
    bound: sql.Composable | None,
    order_by: str | None,
    limit: int | None,
) -> Iterator[list[dict[str, Any]]]:
    """Yield the rows of `selection` in batches of some thousands; the last batch is smaller.

    Values without a JSON type of their own come as PostgreSQL's text.

    Args:
        bound: the condition that follows from the bookmark.
        order_by: a column.
    """
    names = [column.name for column in selection.columns]
    query = sql.SQL("SELECT {}, {} FROM ({}) selected").format(
        sql.SQL(", ").join(_expression(name, properties.get(name, {})) for name in names),
        _uncarried(
            {
                column.name: str(column.target_type.type)
                for column in selection.columns
                if column.name not in selection.masks
            }
        ),
        selection.query(bound=bound),
    )
    if order_by is not None and order_by in names:
        query += sql.SQL(" ORDER BY {} NULLS FIRST").format(sql.SQL("selected.") + sql.Identifier(order_by))
    if limit is not None:
        query += sql.SQL(" LIMIT {}").format(sql.Literal(limit))
    with connection.cursor() as cursor:
        # declared here, because psycopg2 opens server-side cursors only in transactions that it began
        cursor.execute(sql.SQL("DECLARE records NO SCROLL CURSOR FOR ") + query)
        while True:
            cursor.execute(f"FETCH {_FETCH_ROWS} FROM records")
            rows = cursor.fetchall()
            for row in rows:
                if row[-1] is not None:
                    raise TypeUnsupportedError(uncarried(str(selection.relation), row[-1]))
            yield [dict(zip(names, row[:-1], strict=True)) for row in rows]
            if len(rows) < _FETCH_ROWS:
                return


def uncarried(relation: str, column: str) -> str:
    """Return the message for a value that JSON or the driver would alter."""
    return (
        f"{relation}.{column} has a value that records can't represent (infinity, NaN, a number above 1.8e308, "
        f"an array with bounds of its own): set use_copy, mask it, or deselect {column}."
    )


def _uncarried(types: Mapping[str, str]) -> sql.Composable:
    """Return an SQL expression: the name of a column whose value JSON or the driver would alter, or null."""
    cases = []
    for name, type_ in types.items():
        bare = type_.partition("(")[0]
        column = sql.SQL("selected.") + sql.Identifier(name)
        if type_.endswith("[]"):
            condition = sql.SQL("array_lower({}, 1) <> 1").format(column)
        elif bare in {"real", "double precision", "numeric"}:
            # NaN is greater than all numbers; a numeric beyond a float's range would become null
            condition = sql.SQL("{0} = 'NaN' OR abs({0}) > 1.7976931348623157e308").format(column)
        elif bare in {"date", "timestamp", "timestamp without time zone", "timestamp with time zone"}:
            condition = sql.SQL("NOT isfinite({})").format(column)
        else:
            continue
        cases.append(sql.SQL("WHEN {} THEN {}").format(condition, literal(name)))
    if not cases:
        return sql.SQL("NULL::text")
    return sql.SQL("CASE {} END").format(sql.SQL(" ").join(cases))


# ISO 8601 as Python writes it: no fraction or six digits of it, and an offset in hours and minutes
_TIME = r"""(
    SELECT CASE WHEN strpos(clock, '.') > 0 THEN rpad(clock, 15, '0') ELSE clock END
        || CASE WHEN length(zone) = 3 THEN zone || ':00' ELSE zone END
    FROM (SELECT substring({0} from '^[0-9:.]+') AS clock, coalesce(substring({0} from '[-+].*$'), '') AS zone) time
)"""


def _expression(name: str, schema: Mapping[str, Any]) -> sql.Composable:
    column = sql.SQL("selected.") + sql.Identifier(name)
    kinds = set(schema.get("type", []))
    type_ = str(schema.get("x-sql-datatype", ""))
    if type_ in {"hstore", "hstore[]"} and "object" in (kinds | set(schema.get("items", {}).get("type", []))):
        return column + sql.SQL("::" + type_.replace("hstore", "jsonb"))
    if type_.startswith("time") and not type_.startswith("timestamp") and not type_.endswith("[]"):
        return sql.SQL(_TIME).format(column + sql.SQL("::text"))
    if type_.startswith(("character(", "bpchar")) and not type_.endswith("[]"):
        # a cast to text would strip trailing blanks
        return column
    # the driver would turn 24:00 into 00:00
    if kinds <= {"string", "null"} and schema.get("format") in {None, "uuid", "time"}:
        return column + sql.SQL("::text")
    if kinds - {"null"} == {"array"} and set(schema.get("items", {}).get("type", [])) <= {"string", "null"}:
        return column + sql.SQL("::text[]")
    return column
