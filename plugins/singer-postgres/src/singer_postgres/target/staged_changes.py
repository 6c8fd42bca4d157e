"""Changes of a LOG_BASED stream that are not merged yet: staged for a cut, or waiting for the end of a first load."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from psycopg import sql

from singer_postgres.core.change_columns import NUMBER
from singer_postgres.core.warehouse import merge, tables
from singer_postgres.core.warehouse.followed_streams import pending_table

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import psycopg

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
    """The table in which a stream's changes wait until its first load is complete. It is created when it is needed."""

    def __init__(self, connection: Connection, schema: str, stream: str) -> None:
        self._connection = connection
        self._stream = stream
        self._table = pending_table(schema, stream)

    def keep(self, staged: Sequence[StagedChanges]) -> None:
        """Move staged changes into the table."""
        for each in staged:
            columns = each.load.log_stage(self._connection)
            create = sql.SQL("CREATE TABLE IF NOT EXISTS {} ({})").format(self._table, tables.definitions(columns))
            self._connection.execute(create)
            self._widen(columns)
            self._append(each.stage, list(columns))

    def with_staged(self, load: LogStreamLoad, staged: Sequence[StagedChanges]) -> list[StagedChanges]:
        """Return all changes since the stream was first read, to be merged into its loaded table."""
        self.keep(staged)
        row = self._connection.execute("SELECT to_regclass(%s)", [self._table.as_string(self._connection)]).fetchone()
        if not row or row[0] is None:
            return []
        self._widen(load.log_stage(self._connection))
        flags = {"has_unchanged": True, "has_moved": True, "has_truncated": True}
        return [StagedChanges(load, self._table, sum(each.rows for each in staged), **flags)]

    def drop(self) -> None:
        """Drop the table."""
        self._connection.execute(sql.SQL("DROP TABLE IF EXISTS {}").format(self._table))

    def _widen(self, columns: Mapping[str, str]) -> None:
        """Add the columns that the source's table got since."""
        added = [
            sql.SQL("ADD COLUMN IF NOT EXISTS {}").format(tables.definitions({name: type_}))
            for name, type_ in columns.items()
        ]
        self._connection.execute(sql.SQL("ALTER TABLE {} {}").format(self._table, sql.SQL(", ").join(added)))

    def _append(self, stage: sql.Composable, columns: list[str]) -> None:
        """Append changes after those that are there, in the order of the log: each session numbers its own from 1."""
        number = sql.Identifier(NUMBER)
        row = self._connection.execute(
            sql.SQL("SELECT coalesce(max({}), 0) FROM {}").format(number, self._table)
        ).fetchone()
        assert row
        values = [
            sql.SQL("{} + {}").format(number, sql.Literal(row[0])) if name == NUMBER else sql.Identifier(name)
            for name in columns
        ]
        self._connection.execute(
            sql.SQL("INSERT INTO {} ({}) SELECT {} FROM {}").format(
                self._table, merge.names(columns), sql.SQL(", ").join(values), stage
            )
        )
