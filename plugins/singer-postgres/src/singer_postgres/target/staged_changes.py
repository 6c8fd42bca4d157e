"""Changes of a LOG_BASED stream that are not merged yet: staged for a cut, or waiting for the end of a first load."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from psycopg import sql

from singer_postgres.core.change_columns import NUMBER, UNCHANGED
from singer_postgres.core.warehouse import merge, tables
from singer_postgres.core.warehouse.followed_streams import pending_table
from singer_postgres.target import stage_columns

if TYPE_CHECKING:
    from collections.abc import Sequence

    import psycopg

    from singer_postgres.core.wire import WireColumn
    from singer_postgres.target.log_stream_load import LogStreamLoad

    Connection = psycopg.Connection[Any]


@dataclass
class StagedChanges:
    """The changes of one stream, with one description of its table.

    Attributes:
        rows, bytes: what was read of the log.
        has_unchanged, has_moved, has_truncated: see `wire.Changes`.
    """

    load: LogStreamLoad
    stage: sql.Identifier
    rows: int = 0
    bytes: int = 0
    has_unchanged: bool = False
    has_moved: bool = False
    has_truncated: bool = False


class PendingChanges:
    """The table in which a stream's changes wait until its first load is complete. It is created when it is needed.

    Its columns are named by attnum, and so are those whose value did not change: the source's table may be altered
    meanwhile, and the changes are merged into the table as it is in the end.
    """

    def __init__(self, connection: Connection, schema: str, stream: str) -> None:
        self._connection = connection
        self._stream = stream
        self._table = pending_table(schema, stream)

    def keep(self, staged: Sequence[StagedChanges]) -> None:
        """Move staged changes into the table."""
        for each in staged:
            self._widen(each.load)
            self._append(each.load, each.stage)

    def with_staged(self, load: LogStreamLoad, staged: Sequence[StagedChanges]) -> list[StagedChanges]:
        """Return all changes since the stream was first read, to be merged into its loaded table."""
        self.keep(staged)
        if not self._columns():
            return []
        self._widen(load)
        kept = {_kept(column): column.name for column in load.table.columns}
        stage_columns.rename(self._connection, self._table, kept)
        places = [(column.attnum, place) for place, column in enumerate(load.table.columns, 1)]
        self._connection.execute(
            sql.SQL("UPDATE {} SET {unchanged} = {places} WHERE {unchanged} IS NOT NULL").format(
                self._table, unchanged=sql.Identifier(UNCHANGED), places=_translated(places)
            )
        )
        flags = {"has_unchanged": True, "has_moved": True, "has_truncated": True}
        return [StagedChanges(load, self._table, sum(each.rows for each in staged), **flags)]

    def drop(self) -> None:
        """Drop the table."""
        self._connection.execute(sql.SQL("DROP TABLE IF EXISTS {}").format(self._table))

    def _columns(self) -> dict[str, str]:
        """Return the table's columns with their types; none if it does not exist."""
        rows = self._connection.execute(
            "SELECT attname, format_type(atttypid, atttypmod) FROM pg_attribute "
            "WHERE attrelid = to_regclass(%s) AND attnum > 0 AND NOT attisdropped",
            [self._table.as_string(self._connection)],
        )
        return dict(rows.fetchall())

    def _widen(self, load: LogStreamLoad) -> None:
        """Fit the table to a stream's description: columns that the source's table got since, and other types."""
        types = load.log_stage(self._connection)
        columns = [replace(column, name=_kept(column)) for column in load.table.columns]
        kept = {_kept(column): types.pop(column.name) for column in load.table.columns}
        has = self._columns()
        if not has:
            create = sql.SQL("CREATE TABLE {} ({})").format(self._table, tables.definitions({**types, **kept}))
            self._connection.execute(create)
            # the largest number is looked up at each cut, for as long as the first load takes
            index = sql.SQL("CREATE INDEX ON {} ({})").format(self._table, sql.Identifier(NUMBER))
            self._connection.execute(index)
            return
        missing = [column for column in columns if column.name not in has]
        stage_columns.add(self._connection, self._table, missing, kept)
        for name, type_ in {**types, **kept}.items():
            if has.get(name, type_) != type_:
                alter = sql.SQL("ALTER TABLE {0} ALTER COLUMN {1} TYPE {2} USING {1}::{2}")
                self._connection.execute(alter.format(self._table, sql.Identifier(name), sql.SQL(type_)))

    def _append(self, load: LogStreamLoad, stage: sql.Composable) -> None:
        """Append changes after those that are there, in the order of the log: each session numbers its own from 1."""
        number = sql.Identifier(NUMBER)
        row = self._connection.execute(
            sql.SQL("SELECT coalesce(max({}), 0) FROM {}").format(number, self._table)
        ).fetchone()
        assert row
        kept = {column.name: _kept(column) for column in load.table.columns}
        attnums = [(place, column.attnum) for place, column in enumerate(load.table.columns, 1)]
        values: dict[str, sql.Composable] = {
            kept.get(name, name): sql.Identifier(name) for name in load.log_stage(self._connection)
        }
        values[NUMBER] = sql.SQL("{} + {}").format(number, sql.Literal(row[0]))
        values[UNCHANGED] = _translated(attnums)
        self._connection.execute(
            sql.SQL("INSERT INTO {} ({}) SELECT {} FROM {}").format(
                self._table, merge.names(list(values)), sql.SQL(", ").join(values.values()), stage
            )
        )


def _kept(column: WireColumn) -> str:
    """Return the name under which a column's values wait: it does not change when the column is renamed."""
    return f"_tidemark_of_{column.attnum or column.name}"


def _translated(numbers: Sequence[tuple[int, int]]) -> sql.Composed:
    """Return the expression that translates the numbers of unchanged columns, as listed; it leaves out all others."""
    return sql.SQL(
        "(SELECT array_agg(n.theirs::smallint) FROM (VALUES {}) n(ours, theirs) WHERE n.ours = ANY ({}))"
    ).format(
        sql.SQL(", ").join(sql.SQL("({}, {})").format(ours, theirs) for ours, theirs in numbers if ours and theirs),
        sql.Identifier(UNCHANGED),
    )
