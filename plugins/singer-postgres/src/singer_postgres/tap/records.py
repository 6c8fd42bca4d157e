"""Reads a stream as records, for targets, maps and tests that need them one by one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from psycopg2 import sql

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from psycopg2.extensions import connection as Connection  # noqa: N812

    from singer_postgres.tap.select import Selection

_FETCH_ROWS = 5_000


def read(  # noqa: PLR0913 - each is a part of one query
    connection: Connection,
    selection: Selection,
    *,
    properties: Mapping[str, Any],
    bound: sql.Composable | None,
    order_by: str | None,
    limit: int | None,
) -> Iterator[dict[str, Any]]:
    """Yield the rows of `selection` under the transaction of `connection`, a few thousand in memory at a time.

    What has no JSON type of its own comes as the text that PostgreSQL gives.

    Args:
        properties: the stream's JSON schema, by column.
        bound: the condition that follows from the bookmark.
        order_by: a column.
        limit: the most rows to read.
    """
    names = [column.name for column in selection.columns]
    query = sql.SQL("SELECT {} FROM ({}) selected").format(
        sql.SQL(", ").join(_expression(name, properties.get(name, {})) for name in names),
        selection.query(bound=bound),
    )
    if order_by is not None and order_by in names:
        query += sql.SQL(" ORDER BY {} NULLS FIRST").format(sql.SQL("selected.") + sql.Identifier(order_by))
    if limit is not None:
        query += sql.SQL(" LIMIT {}").format(sql.Literal(limit))
    with connection.cursor() as cursor:
        # by hand: psycopg2 makes a cursor of its own only in transactions that it began
        cursor.execute(sql.SQL("DECLARE records NO SCROLL CURSOR FOR ") + query)
        while True:
            cursor.execute(f"FETCH {_FETCH_ROWS} FROM records")
            rows = cursor.fetchall()
            for row in rows:
                yield dict(zip(names, row, strict=True))
            if len(rows) < _FETCH_ROWS:
                return


def _expression(name: str, schema: Mapping[str, Any]) -> sql.Composable:
    column = sql.SQL("selected.") + sql.Identifier(name)
    kinds = set(schema.get("type", []))
    if kinds <= {"string", "null"} and schema.get("format") in {None, "uuid"}:
        return column + sql.SQL("::text")
    if kinds - {"null"} == {"array"} and set(schema.get("items", {}).get("type", [])) <= {"string", "null"}:
        return column + sql.SQL("::text[]")
    return column
