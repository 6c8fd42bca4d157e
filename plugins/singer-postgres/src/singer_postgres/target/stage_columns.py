"""Brings changes with an earlier description of a table to its latest one, as the source did with its own rows.

A column is known by its attnum, so it keeps its values when it is renamed. A column that was added later has the value
in these changes that PostgreSQL gives to rows that are older than it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from psycopg import sql

if TYPE_CHECKING:
    from collections.abc import Mapping

    import psycopg

    from singer_postgres.core.wire import Table, WireColumn

    Connection = psycopg.Connection[Any]


def renamed(was: Table, latest: Table) -> dict[str, str]:
    """Return the names, by those before, of columns that have another name now."""
    now = {column.attnum: column.name for column in latest.columns if column.attnum}
    return {
        column.name: now[column.attnum] for column in was.columns if now.get(column.attnum, column.name) != column.name
    }


def added(was: Table, latest: Table) -> list[WireColumn]:
    """Return the columns that were added later."""
    return [column for column in latest.columns if column.attnum > was.max_attnum]


def follow(connection: Connection, stage: sql.Composable, was: Table, latest: Table, types: Mapping[str, str]) -> None:
    """Rename and add columns of a stage.

    Args:
        types: the types of the latest columns in the warehouse.
    """
    rename(connection, stage, renamed(was, latest))
    add(connection, stage, added(was, latest), types)


def rename(connection: Connection, stage: sql.Composable, names: Mapping[str, str]) -> None:
    """Rename columns, also where two swap their names."""
    between = {name: f"_tidemark_{number}" for number, name in enumerate(names)}
    for name, now in [*between.items(), *((between[name], now) for name, now in names.items())]:
        statement = sql.SQL("ALTER TABLE {} RENAME COLUMN {} TO {}")
        connection.execute(statement.format(stage, sql.Identifier(name), sql.Identifier(now)))


def add(connection: Connection, stage: sql.Composable, columns: list[WireColumn], types: Mapping[str, str]) -> None:
    """Add columns, with the value of older rows in the changes that are there."""
    for column in columns:
        name = sql.Identifier(column.name)
        action = sql.SQL("ALTER TABLE {} ADD COLUMN {} {}").format(stage, name, sql.SQL(types[column.name]))
        if column.missing_value is not None:
            action += sql.SQL(" DEFAULT {}; ALTER TABLE {} ALTER COLUMN {} DROP DEFAULT").format(
                sql.Literal(column.missing_value), stage, name
            )
        connection.execute(action)
