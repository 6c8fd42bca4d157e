"""How many rows the raw tables hold, and how many rows of the source stand at a bookmark."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from psycopg import errors, sql

if TYPE_CHECKING:
    from collections.abc import Mapping

    import psycopg

    from tidemark.pipeline.state import Bookmark


def table_of(stream: str) -> str:
    """Return the table that the target loads `stream` (SCHEMA-TABLE) into."""
    return stream.rsplit("-", 1)[-1]


def raw_rows(connection: psycopg.Connection[Any], schema: str) -> dict[str, int]:
    """Return the number of rows of each table in `schema`."""
    tables = connection.execute(
        "select relname from pg_class join pg_namespace on pg_namespace.oid = relnamespace "
        "where nspname = %s and relkind in ('r', 'p')",
        [schema],
    ).fetchall()
    counts = {}
    for (table,) in tables:
        row = connection.execute(sql.SQL("select count(*) from {}").format(sql.Identifier(schema, table))).fetchone()
        assert row
        counts[table] = row[0]
    return counts


def at_bookmarks(connection: psycopg.Connection[Any], bookmarks: Mapping[str, Bookmark]) -> dict[str, int]:
    """Return how many rows of the source stand at each stream's bookmark: those that a tap reads again."""
    counts = {}
    for stream, bookmark in bookmarks.items():
        schema, _, table = stream.partition("-")
        # an untyped literal takes the column's type, whether that is a time, a number or a text
        query = sql.SQL("select count(*) from {} where {} = {}").format(
            sql.Identifier(schema, table), sql.Identifier(bookmark.key), sql.Literal(str(bookmark.value))
        )
        try:
            row = connection.execute(query).fetchone()
        except (errors.UndefinedTable, errors.UndefinedColumn, errors.DataError):
            # the source has changed its shape; the tap will say so
            continue
        assert row
        counts[stream] = row[0]
    return counts
