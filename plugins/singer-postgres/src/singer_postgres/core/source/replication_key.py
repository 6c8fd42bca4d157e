"""Replication keys that are times: how far back a stream is read, and what holds its bookmark back.

A transaction stamps its rows with its start time. It may commit after a run has read the rows of a later transaction.
So the bookmark, the watermark of the stream, is never the newest value seen. It is an instant before which no
transaction was still open when the snapshot was taken: `OpenTransactions.settled` computes it.
`tap/ordered_bookmark.py` has the bookmarks of other keys.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from singer_postgres.core.errors import SettingInvalidError, StateInvalidError
from singer_postgres.core.source import open_transactions
from singer_postgres.core.sql_compat import DataError, literal, sql

if TYPE_CHECKING:
    from psycopg2.extensions import connection as Connection  # noqa: N812

    from singer_postgres.core.notices import Notices
    from singer_postgres.core.source.open_transactions import OpenTransactions
    from singer_postgres.core.source.relations import Column

# a transaction gets its start time shortly before other sessions can see it
LOOKBACK_FLOOR_S = 5
# If the zone is unknown, local times count as the earliest on earth: rows may be read twice, but none is missed.
_EARLIEST = timedelta(hours=-12)
# the server versions from which on a type has -infinity, which applications write for "never"
_MINUS_INFINITY_SINCE = {"date": 0, "real": 0, "double precision": 0, "numeric": 14_00_00, "interval": 17_00_00}


@dataclass(frozen=True)
class Lookback:
    """How far before a bookmark a run begins to read.

    Attributes:
        usual: the distance for every bookmark that is a time.
        longest: how long an invisible transaction may have been open.
        zone: the time zone of columns without one; None if unknown.
    """

    usual: timedelta
    longest: timedelta
    zone: str | None


def is_instant(column: Column) -> bool:
    """Return whether a column's values are instants: timestamp with time zone, or a domain over it."""
    type_ = column.target_type.type or ""
    return type_.startswith("timestamp") and type_.endswith("with time zone")


def is_time(column: Column) -> bool:
    """Return whether a column's values are instants or local times, which the starts of transactions compare with."""
    type_ = column.target_type.type or ""
    return type_ == "date" or (type_.startswith("timestamp") and not type_.endswith("[]"))


@dataclass(frozen=True)
class ReplicationKey:
    """A stream's replication key, and the conditions that follow from a bookmark."""

    column: Column
    lookback: Lookback

    @property
    def _type(self) -> str:
        return self.column.target_type.type or ""

    @property
    def is_instant(self) -> bool:
        """Whether the key's values are instants."""
        return is_instant(self.column)

    @property
    def is_local(self) -> bool:
        """Whether the key's values are local times: a date, or a timestamp without time zone."""
        return self.is_time and not self.is_instant

    @property
    def is_time(self) -> bool:
        """Whether the key's values can be compared with the start times of transactions."""
        return is_time(self.column)

    def instant(self, bookmark: str) -> datetime:
        """Parse a bookmark as an instant. Without an offset it is in UTC.

        Raises:
            SingerPostgresError: the bookmark is not an instant.
        """
        try:
            instant = datetime.fromisoformat(bookmark)
        except ValueError:
            msg = (
                f"The state's bookmark {bookmark!r} is not an instant (such as 2026-01-31T12:00:00Z), but "
                f"{self.column.name} is a time; correct the state."
            )
            raise StateInvalidError(msg) from None
        return instant if instant.tzinfo else instant.replace(tzinfo=UTC)

    def bound(self, connection: Connection, start: str) -> sql.Composable:
        """Return the condition on the rows to read from bookmark `start` on.

        It includes rows whose key is null or -infinity: no later run would read them.

        Raises:
            SingerPostgresError: `start` is not a value of the key's type.
        """
        if self.is_time:
            first = _before(self.instant(start), max(self.lookback.usual, timedelta(seconds=LOOKBACK_FLOOR_S)))
            value = sql.SQL("{}::timestamptz").format(sql.Literal(open_transactions.iso(first)))
            if self.is_local:
                local = "({} AT TIME ZONE 'UTC' + {}::interval)"
                offset = sql.Literal(f"{self._offset(connection, first).total_seconds()} seconds")
                value = sql.SQL(local).format(value, offset) + sql.SQL(f"::{self._type}")
        else:
            value = sql.SQL("{}::{}").format(literal(start), sql.SQL(self.column.declared))
        name = sql.Identifier(self.column.name)
        any_of = [sql.SQL("{} >= {}").format(name, value)]
        if self._has_minus_infinity(connection):
            any_of.append(sql.SQL("{} = '-infinity'::{}").format(name, sql.SQL(self._type)))
        if not self.column.not_null:
            any_of.append(sql.SQL("{} IS NULL").format(name))
        return sql.SQL("({})").format(sql.SQL(" OR ").join(any_of))

    def _has_minus_infinity(self, connection: Connection) -> bool:
        if self._type.startswith("timestamp"):
            return self.is_time
        since = _MINUS_INFINITY_SINCE.get(self._type)
        return since is not None and connection.info.server_version >= since

    def _offset(self, connection: Connection, first: datetime) -> timedelta:
        """Return the smallest UTC offset that local times since `first` may have been written with.

        When clocks are put back, an hour comes twice, and rows written in its second pass can have earlier local times
        than rows written in the first.
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
                f"timestamp_timezone is {self.lookback.zone!r}, which the source does not know; write one of its "
                "pg_timezone_names, such as UTC or Europe/Oslo."
            )
            raise SettingInvalidError(msg) from error
        # null: the bookmark is in the future
        return row[0] if row and row[0] is not None else _EARLIEST


def _before(instant: datetime, by: timedelta) -> datetime:
    """Subtract `by` from an instant, but stop at the earliest one."""
    try:
        return instant - by
    except OverflowError:
        return datetime.min.replace(tzinfo=UTC)


def warn_about_holders(found: OpenTransactions, lookback: Lookback, notices: Notices) -> None:
    """Warn about transactions that hold bookmarks back."""
    if found.blind_because:
        minutes = lookback.longest.total_seconds() / 60
        notices.warn("blind", f"Bookmarks stay {minutes:.0f} minutes behind, because {found.blind_because}")
    if found.prepared:
        gid, since = found.prepared
        notices.warn(
            "prepared",
            f"Transaction {gid!r}, prepared at {open_transactions.iso(since)}, is neither committed nor rolled back. "
            "Bookmarks stay where they are until it is: COMMIT PREPARED or ROLLBACK PREPARED.",
        )
    elif found.holder and found.now - found.oldest_start > lookback.usual:
        oldest_start = open_transactions.iso(found.oldest_start)
        notices.warn(
            "holder",
            f"The transaction of {found.holder} has been open for {_in_words(found.now - found.oldest_start)}, since "
            f"{oldest_start}. Until it ends, bookmarks stay there, and each run reads rows changed since then again.",
        )


def _in_words(length: timedelta) -> str:
    minutes = round(length.total_seconds() / 60)
    return f"{minutes // 60} h {minutes % 60} min" if minutes >= 60 else f"{minutes} min"  # noqa: PLR2004 - of an hour
