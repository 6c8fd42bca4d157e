"""How many rows each stream's table holds in the warehouse, and how many stand at a bookmark."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

from psycopg import errors, sql

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    import psycopg

    from tidemark.pipeline.state import Bookmark


@dataclass(frozen=True)
class Count:
    """Rows of a table: all, and those whose replication key is the bookmark given (which a tap reads again)."""

    rows: int = 0
    at_bookmark: int = 0


def table_of(stream: str) -> str:
    """Return the table that the target loads `stream` (SCHEMA-TABLE) into."""
    return stream.rsplit("-", 1)[-1]


def count(
    connection: psycopg.Connection[Any],
    schema: str,
    streams: Iterable[str],
    bookmarks: Mapping[str, Bookmark],
) -> dict[str, Count]:
    """Count the table of each of `streams`; one that does not exist is left out."""
    counts = {}
    for stream in streams:
        table = sql.Identifier(schema, table_of(stream))
        matches = _at(bookmarks[stream]) if stream in bookmarks else sql.SQL("false")
        query = sql.SQL("select count(*), count(*) filter (where {}) from {}").format(matches, table)
        try:
            row = connection.execute(query).fetchone()
        except (errors.UndefinedTable, errors.InvalidSchemaName):
            continue
        assert row
        counts[stream] = Count(*row)
    return counts


def _at(bookmark: Bookmark) -> sql.Composable:
    """Return the condition that a row's replication key is the bookmark."""
    column, value = sql.Identifier(bookmark.key), sql.Literal(str(bookmark.value))
    try:
        datetime.fromisoformat(str(bookmark.value))
    except ValueError:
        return sql.SQL("{}::text = {}").format(column, value)
    # the target stores an instant as a timestamp in UTC without zone
    return sql.SQL("{} = ({}::timestamptz at time zone 'UTC')").format(column, value)
