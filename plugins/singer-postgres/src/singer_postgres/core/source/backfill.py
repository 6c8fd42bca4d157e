"""Backfills: rows of a stream to read again, whatever its bookmark says: a range of the replication key, or all."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

from singer_postgres.core.errors import SettingInvalidError, SingerPostgresError
from singer_postgres.core.sql_compat import DataError, literal, sql

if TYPE_CHECKING:
    from collections.abc import Mapping

    from psycopg2.extensions import connection as Connection  # noqa: N812

    from singer_postgres.core.source.replication_key import ReplicationKey

FROM, TO = "from", "to"


@dataclass(frozen=True)
class Backfill:
    """The range of one stream to read again.

    Attributes:
        first: the smallest value of the replication key; None for no limit.
        after: the first value after the range; None for no limit.
    """

    first: str | None = None
    after: str | None = None

    @classmethod
    def of(cls, setting: Mapping[str, Any]) -> Backfill:
        """Parse the setting's value for a stream."""
        first, after = (None if setting.get(name) is None else str(setting[name]) for name in (FROM, TO))
        return cls(first, after)

    def to_json(self) -> dict[str, str]:
        """Return the value as the setting has it."""
        return {name: value for name, value in ((FROM, self.first), (TO, self.after)) if value is not None}

    @property
    def is_all(self) -> bool:
        """Whether the backfill reads all rows, including those without a value in the replication key."""
        return self.first is None and self.after is None


def bound(connection: Connection, stream: str, key: ReplicationKey, asked: Backfill) -> sql.Composable | None:
    """Return the condition on the rows of the backfill; None for all rows.

    Raises:
        SingerPostgresError: a limit is not a value of the key's type, or the range is empty.
    """
    limits = {
        name: _value(connection, stream, key, name, text)
        for name, text in ((FROM, asked.first), (TO, asked.after))
        if text is not None
    }
    if not limits:
        return None
    if len(limits) > 1 and not _is_before(connection, limits[FROM], limits[TO]):
        msg = f"The backfill of {stream} is {FROM} {asked.first} {TO} {asked.after}: {FROM} must be before {TO}."
        raise SettingInvalidError(msg)
    signs = {FROM: ">=", TO: "<"}
    name = sql.Identifier(key.column.name)
    return sql.SQL(" AND ").join(
        sql.SQL(f"{{}} {signs[limit]} {{}}").format(name, value) for limit, value in limits.items()
    )


def _value(connection: Connection, stream: str, key: ReplicationKey, name: str, text: str) -> sql.Composable:
    """Return a limit as SQL.

    Raises:
        SingerPostgresError: it is not a value of the key's type.
    """
    value = _time(stream, key, name, text) if key.is_time else _cast(text, key.column.declared)
    try:
        with connection.cursor() as cursor:
            cursor.execute(sql.SQL("SELECT {}").format(value))
    except DataError as error:
        raise _refusal(stream, key, name, text) from error
    return value


def _time(stream: str, key: ReplicationKey, name: str, text: str) -> sql.Composable:
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        raise _refusal(stream, key, name, text) from None
    if key.is_instant:
        # an instant without an offset is in UTC, like the session
        return _cast(time.isoformat(), "timestamptz")
    if time.tzinfo is None:
        # not cast to date, even if the key is one: the range may begin within a day
        return _cast(time.isoformat(), "timestamp")
    if key.lookback.zone is None:
        msg = (
            f"The backfill of {stream} has {name} {text!r}, an instant, and {key.column.name} has no time zone: set "
            "timestamp_timezone, or write it as the column has it, such as 2026-01-31 12:00."
        )
        raise SettingInvalidError(msg)
    return sql.SQL("({} AT TIME ZONE {})").format(
        _cast(time.isoformat(), "timestamptz"), sql.Literal(key.lookback.zone)
    )


def _cast(text: str, type_: str) -> sql.Composable:
    return sql.SQL("{}::{}").format(literal(text), sql.SQL(type_))


def _is_before(connection: Connection, first: sql.Composable, after: sql.Composable) -> bool:
    with connection.cursor() as cursor:
        cursor.execute(sql.SQL("SELECT {} < {}").format(first, after))
        row = cursor.fetchone()
    assert row
    return bool(row[0])


def _refusal(stream: str, key: ReplicationKey, name: str, text: str) -> SingerPostgresError:
    such_as = ", such as 2026-01-31 or 2026-01-31T12:00:00Z" if key.is_time else ""
    return SettingInvalidError(
        f"The backfill of {stream} has {name} {text!r}, and its replication key {key.column.name} is of type "
        f"{key.column.declared}: write a value of that type{such_as}."
    )
