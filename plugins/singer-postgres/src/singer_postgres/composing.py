"""The composing of SQL, by whichever driver is installed here: the tap's environment has one, other tools the other.

Both have the same SQL, Identifier, Literal and Composed.
"""

from __future__ import annotations

try:
    from psycopg2 import DataError, sql
except ImportError:
    from psycopg import DataError, sql

__all__ = ["DataError", "literal", "quoted", "sql"]


def quoted(*names: str) -> str:
    """Return a name, each part quoted, as people are shown it in statements."""
    return ".".join('"' + name.replace('"', '""') + '"' for name in names)


def literal(value: object) -> sql.Composable:
    """Return a value as SQL, whatever is in a text.

    Where the database has standard_conforming_strings off, psycopg2 goes on to write backslashes as if the session had.
    """
    if not isinstance(value, str) or "\\" not in value:
        return sql.Literal(value)
    return sql.SQL("pg_catalog.convert_from(pg_catalog.decode({}, 'hex'), 'UTF8')").format(
        sql.Literal(value.encode().hex())
    )
