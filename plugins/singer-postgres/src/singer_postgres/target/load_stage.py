"""The temporary table through which rows of a stream get into its table, one in each session."""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING, Any

from psycopg import sql

from singer_postgres.core.warehouse import tables
from singer_postgres.target.full_stages import short_digest

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import psycopg

    Connection = psycopg.Connection[Any]


class LoadStage:
    """The temporary tables of one stream in one run. A transaction leaves its table empty."""

    def __init__(self, stream: str) -> None:
        """Make no table yet."""
        self._name = f"stage_{short_digest(stream)}"
        self._made_in: weakref.WeakSet[Connection] = weakref.WeakSet()

    def of(self, connection: Connection, types: Mapping[str, str]) -> sql.Composable:
        """Return the session's table, with columns of these types. It is created when first needed."""
        if connection not in self._made_in:
            connection.execute(
                sql.SQL("CREATE TEMPORARY TABLE IF NOT EXISTS {} ({}) ON COMMIT DELETE ROWS").format(
                    sql.Identifier(self._name), tables.definitions(types)
                )
            )
            self._made_in.add(connection)
        return sql.Identifier("pg_temp", self._name)


def cast(stage: sql.Composable, columns: Sequence[str], casts: Mapping[str, str]) -> sql.Composable:
    """Return what to select a stage's rows from, if the table's columns have other types.

    Args:
        columns: all that the stage has.
        casts: the other types, by column.
    """
    if not casts:
        return stage
    fields = []
    for name in columns:
        type_ = casts.get(name)
        field = sql.SQL("{0}::{1} AS {0}" if type_ else "{0}")
        fields.append(field.format(sql.Identifier(name), sql.SQL(type_ or "")))
    return sql.SQL("(SELECT {} FROM {})").format(sql.SQL(", ").join(fields), stage)
