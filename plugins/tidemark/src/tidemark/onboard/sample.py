"""Measures in the source what share of a column's values look like personal data. No value leaves the server."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from psycopg import DataError, errors, sql

from tidemark.onboard.personal_data import SHAPES, is_text
from tidemark.project.connections import SNAPSHOT

if TYPE_CHECKING:
    from collections.abc import Iterable

    import psycopg

    from tidemark.onboard.source_tables import SourceColumn, SourceTable

_ROWS = 200
# longer values are texts, and detoasting them takes time
_LONGEST = 64
# a short transaction for each table: one for all would hold a lock on each of them, and the source has room for few
READING = f"{SNAPSHOT}; set local statement_timeout = '2s'"
# below this many values, a share says nothing
_FEWEST = 5
# Patterns of whole values, without the blanks around them. A phone number needs a plus, a zero or its usual separators,
# or any number would be one.
_PATTERNS = {
    "email": r"^[^@\s]+@[^@\s]+\.[a-z]{2,}$",
    "iban": r"^[a-z]{2}\d{2}( ?[a-z0-9]{4}){2,7}( ?[a-z0-9]{1,3})?$",
    "card": r"^(4\d{3}|5[1-5]\d{2}|6011|3[47]\d{2})[ -]?\d{4}[ -]?\d{4}[ -]?\d{3,4}$",
    "ip": r"^((25[0-5]|2[0-4]\d|1?\d?\d)\.){3}(25[0-5]|2[0-4]\d|1?\d?\d)$",
    "phone": r"^((\+|00)[1-9][\d ()./-]{6,17}|\(?\d{3}\)?[-. ]?\d{3}[-. ]\d{4}|0\d{1,4}[ /-]\d[\d -]{4,10})$",
}
assert _PATTERNS.keys() == SHAPES.keys()


def shares(
    connection: psycopg.Connection[Any], tables: Iterable[SourceTable]
) -> dict[str, dict[str, dict[str, float]]]:
    """Return, by stream and column, the share of values with each shape, each table in a transaction.

    Tables without text, or without rows, take no query. A table that can't be sampled in time has no shares.
    """
    found = {}
    for table in tables:
        columns = [column for column in table.columns if column.readable and is_text(column)]
        if not columns or not table.bytes or table.kind not in "rpm":
            continue
        try:
            with connection.transaction():
                connection.execute(READING)
                row = connection.execute(_query(table, columns)).fetchone()
        except (errors.QueryCanceled, errors.LockNotAvailable, errors.InsufficientPrivilege):
            continue
        except DataError:
            # text in a SQL_ASCII database need not be valid
            continue
        if row:
            found[table.stream] = _by_column(columns, row)
    return found


def _query(table: SourceTable, columns: list[SourceColumn]) -> sql.Composed:
    values = [sql.SQL("btrim(left({}::text, {}))").format(sql.Identifier(each.name), _LONGEST + 1) for each in columns]
    named = [sql.SQL("nullif({}, '') as c{}").format(value, sql.SQL(str(n))) for n, value in enumerate(values)]
    measured = []
    for number in range(len(columns)):
        name = sql.Identifier(f"c{number}")
        measured.append(sql.SQL("count({})").format(name))
        measured += [
            sql.SQL("count(*) filter (where {} ~* {})").format(name, sql.Literal(pattern))
            for pattern in _PATTERNS.values()
        ]
    return sql.SQL("select {} from (select {} from {} limit {}) sampled").format(
        sql.SQL(", ").join(measured),
        sql.SQL(", ").join(named),
        sql.Identifier(table.schema, table.name),
        _ROWS,
    )


def _by_column(columns: list[SourceColumn], row: tuple[Any, ...]) -> dict[str, dict[str, float]]:
    width = 1 + len(_PATTERNS)
    found = {}
    for number, column in enumerate(columns):
        count, *hits = row[number * width : (number + 1) * width]
        if count >= _FEWEST:
            found[column.name] = {shape: hit / count for shape, hit in zip(_PATTERNS, hits, strict=True) if hit}
    return found
