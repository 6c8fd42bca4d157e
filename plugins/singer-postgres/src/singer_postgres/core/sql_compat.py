"""Composes SQL with the installed PostgreSQL driver: psycopg2 in the tap's environment, psycopg elsewhere.

Both drivers have the same SQL, Identifier, Literal, Composed and error classes. If both are installed, this uses the
one that the program has already imported, because the connections are made by that one.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from psycopg import DataError, Error, errors, sql
elif "psycopg2" in sys.modules and "psycopg" not in sys.modules:
    from psycopg2 import DataError, Error, errors, sql
else:
    try:
        from psycopg import DataError, Error, errors, sql
    except ImportError:
        from psycopg2 import DataError, Error, errors, sql

__all__ = ["DataError", "Error", "errors", "literal", "quoted", "sql"]


def quoted(*names: str) -> str:
    """Quote each part of a name, to show a statement to a person."""
    return ".".join('"' + name.replace('"', '""') + '"' for name in names)


def literal(value: object) -> sql.Composable:
    """Return a value as SQL.

    A text with backslashes is written as hex. If the database has standard_conforming_strings off, psycopg2 writes
    backslashes as if the session had it off too.
    """
    if not isinstance(value, str) or "\\" not in value:
        return sql.Literal(value)
    return sql.SQL("pg_catalog.convert_from(pg_catalog.decode({}, 'hex'), 'UTF8')").format(
        sql.Literal(value.encode().hex())
    )
