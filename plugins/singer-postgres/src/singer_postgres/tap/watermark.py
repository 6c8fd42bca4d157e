"""The watermark: how far a stream is complete once it has been read.

A transaction stamps its rows with its start, and may commit after one that began later was read. So the bookmark of a
stream is never the newest value seen, but one before which nothing was still open when the snapshot was taken: an
instant for keys that are times, and for other keys the largest value of a moment whose transactions have all ended.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from singer_postgres.composing import DataError, sql
from singer_postgres.errors import SingerPostgresError
from singer_postgres.tap import horizon

if TYPE_CHECKING:
    from psycopg2.extensions import connection as Connection  # noqa: N812

    from singer_postgres.tap.horizon import Horizon
    from singer_postgres.tap.relations import Column
    from singer_postgres.tap.select import Selection

# a transaction's start is fixed shortly before other sessions can see it
LOOKBACK_FLOOR_S = 5
# where the zone is unknown, local times are taken for the earliest on earth: rows are read too often, none is missed
_EARLIEST = timedelta(hours=-12)
# how long to wait for the transactions that might yet add smaller keys; most take milliseconds
_PATIENCE_S = 2.0
_POLL_S = 0.05


@dataclass(frozen=True)
class Lookback:
    """How far to read before a bookmark.

    Attributes:
        usual: before any bookmark that is a time.
        longest: how long a transaction that can't be seen may have been open.
        zone: in which columns without a zone are written; None if that is unknown.
    """

    usual: timedelta
    longest: timedelta
    zone: str | None


@dataclass(frozen=True)
class ReplicationKey:
    """A stream's replication key, and the conditions that follow from a bookmark."""

    column: Column
    lookback: Lookback

    @property
    def _type(self) -> str:
        return self.column.landing.type or ""

    @property
    def is_instant(self) -> bool:
        """Whether the key's values are instants."""
        return self._type.startswith("timestamp") and self._type.endswith("with time zone")

    @property
    def is_local(self) -> bool:
        """Whether the key's values are times of a calendar and clock that stand somewhere."""
        return self._type == "date" or (self._type.startswith("timestamp") and not self.is_instant)

    @property
    def is_time(self) -> bool:
        """Whether the key's values can be compared with when transactions began."""
        return self.is_instant or self.is_local

    def instant(self, bookmark: str) -> datetime:
        """Return what instant a bookmark is. One without an offset is in UTC.

        Raises:
            SingerPostgresError: it is none.
        """
        try:
            instant = datetime.fromisoformat(bookmark)
        except ValueError:
            msg = (
                f"The state's bookmark {bookmark!r} is no instant (such as 2026-01-31T12:00:00Z), and "
                f"{self.column.name} is a time; correct the state."
            )
            raise SingerPostgresError(msg) from None
        return instant if instant.tzinfo else instant.replace(tzinfo=UTC)

    def bound(self, connection: Connection, start: str) -> sql.Composable:
        """Return the condition of the rows to read after bookmark `start`. Rows that have no stamp are among them.

        Raises:
            SingerPostgresError: `start` is no value of the key.
        """
        if self.is_time:
            first = self.instant(start) - max(self.lookback.usual, timedelta(seconds=LOOKBACK_FLOOR_S))
            value = sql.SQL("{}::timestamptz").format(sql.Literal(horizon.iso(first)))
            if self.is_local:
                local = "({} AT TIME ZONE 'UTC' + {}::interval)"
                offset = sql.Literal(f"{self._offset(connection, first).total_seconds()} seconds")
                value = sql.SQL(local).format(value, offset) + sql.SQL(f"::{self._type}")
        else:
            value = sql.SQL("{}::{}").format(sql.Literal(start), sql.SQL(self.column.declared))
        name = sql.Identifier(self.column.name)
        bound = sql.SQL("{} >= {}").format(name, value)
        return bound if self.column.not_null else sql.SQL("({} OR {} IS NULL)").format(bound, name)

    def _offset(self, connection: Connection, first: datetime) -> timedelta:
        """Return the smallest difference to UTC that local times since `first` may have been written with.

        Where clocks are put back, an hour comes twice: of what was written the second time, some is before what was
        written the first time.
        """
        if self.lookback.zone is None:
            return _EARLIEST
        zone = {"zone": self.lookback.zone, "first": first}
        try:
            with connection.cursor() as cursor:
                cursor.execute(
                    "select min((day at time zone %(zone)s) - (day at time zone 'UTC')) from generate_series("
                    "%(first)s::timestamptz, now() + interval '2 days', interval '1 day') day",
                    zone,
                )
                row = cursor.fetchone()
        except DataError as error:
            msg = (
                f"timestamp_timezone is {self.lookback.zone!r}, and the source knows no such time zone; write one of "
                "its pg_timezone_names, such as UTC or Europe/Oslo."
            )
            raise SingerPostgresError(msg) from error
        # none: a bookmark in the future
        return row[0] if row and row[0] is not None else _EARLIEST

    def largest(self, connection: Connection, selection: Selection, bound: sql.Composable | None) -> str | None:
        """Return the largest value that there is now, as text; None if there is none."""
        # qualified: alone, it would be the output's text
        name = sql.Identifier(selection.relation.name, self.column.name)
        conditions = [
            sql.SQL("{} IS NOT NULL").format(name),
            *(sql.SQL(f"({clause}\n)") for clause in selection.where),
            *([bound] if bound else []),
        ]
        # not max(): types such as uuid have an order and no max
        query = sql.SQL("SELECT {name}::text FROM {table} WHERE {conditions} ORDER BY {name} DESC LIMIT 1").format(
            name=name,
            table=sql.Identifier(selection.relation.schema, selection.relation.name),
            conditions=sql.SQL(" AND ").join(conditions),
        )
        with connection.cursor() as cursor:
            cursor.execute(query)
            row = cursor.fetchone()
        return None if row is None else str(row[0])


def outlived(connection: Connection) -> tuple[Horizon, bool]:
    """Wait, for a short while, for all transactions to end that are open now.

    Returns:
        The transactions that then are open, and whether none of them was when this was asked.
    """
    with connection.cursor() as cursor:
        cursor.execute("select clock_timestamp()")
        row = cursor.fetchone()
    assert row
    asked: datetime = row[0]
    until = time.monotonic() + _PATIENCE_S
    while True:
        found = horizon.read(connection)
        ended = found.at >= asked and not found.prepared
        if ended or found.blind or time.monotonic() > until:
            return found, ended or bool(found.blind and not found.prepared)
        time.sleep(_POLL_S)


def cached_sequence(connection: Connection, selection: Selection, column: str) -> str | None:
    """Return the sequence that fills `column`, if it hands values out in blocks: a session may use its own late."""
    with connection.cursor() as cursor:
        cursor.execute(
            """
            select seqrelid::regclass::text from pg_catalog.pg_sequence
            join pg_catalog.pg_depend on objid = seqrelid and classid = 'pg_catalog.pg_class'::regclass
            join pg_catalog.pg_attribute on attrelid = refobjid and attnum = refobjsubid
            where refclassid = 'pg_catalog.pg_class'::regclass and refobjid = %s::bigint::oid and attname = %s
                and seqcache > 1
            """,
            [selection.relation.oid, column],
        )
        row = cursor.fetchone()
    return None if row is None else str(row[0])
