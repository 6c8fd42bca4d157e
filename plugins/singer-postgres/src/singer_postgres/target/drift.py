"""A table of the source that changed its shape: followed where no value is lost, and refused by column where one might.

What was read before is kept in `_tidemark_state`, so that a column that is gone can be told from one that an analyst
added here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from psycopg import sql

from singer_postgres.errors import SingerPostgresError
from singer_postgres.target import types, views
from singer_postgres.target.own_tables import OwnTable

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    import psycopg

    from singer_postgres.target.history import StreamRun
    from singer_postgres.wire import Table, WireColumn

    Connection = psycopg.Connection[Any]

TABLE = OwnTable(
    "_tidemark_schema_changes",
    (
        """
        CREATE TABLE {} (
            id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
            source text NOT NULL,
            stream text NOT NULL,
            table_name text NOT NULL,
            column_name text NOT NULL,
            change text NOT NULL,
            was text,
            becomes text,
            run_id text NOT NULL,
            changed_at timestamptz NOT NULL DEFAULT now()
        )
        """,
    ),
)


@dataclass(frozen=True)
class Change:
    """What became of a column: `added`, `dropped`, `renamed`, `widened`, or `narrowed` in the source alone."""

    column: str
    change: str
    was: str | None = None
    becomes: str | None = None
    views: tuple[str, ...] = ()

    def __str__(self) -> str:
        text = f"{self.column} {self.change}"
        if self.change == "renamed":
            text = f"{self.was} renamed to {self.becomes}"
        elif self.was and self.becomes:
            text += f" from {self.was} to {self.becomes}"
        elif self.becomes:
            text += f", {self.becomes}"
        kept = {
            "dropped": "; it stays, with what it held",
            "narrowed": "; it stays as it is, and takes the values all the same",
        }
        made_again = f"; made again for it: {', '.join(self.views)}" if self.views else ""
        return text + kept.get(self.change, "") + made_again


@dataclass(frozen=True)
class Shape:
    """What of the source's table was read at some time.

    Attributes:
        relation: tells the table from another that had its name before; 0 if that is not known.
        width: the largest number that a column had.
        columns: number and type by name.
    """

    relation: int
    width: int
    columns: Mapping[str, tuple[int, str]]

    @classmethod
    def of(cls, table: Table) -> Shape:
        """Return what is read now."""
        columns = {column.name: (column.number, column.type) for column in table.columns}
        return cls(table.relation, table.width, columns)

    def to_json(self) -> list[Any]:
        """Return it as `_tidemark_state` has it."""
        return [self.relation, self.width, {name: list(column) for name, column in self.columns.items()}]

    @classmethod
    def from_json(cls, value: Any) -> Shape:
        """Read what `to_json` gave."""
        relation, width, columns = value
        return cls(relation, width, {name: (number, type_) for name, (number, type_) in columns.items()})


class Drift:
    """The changes that bring one table here to the shape of its source's, made in the caller's transaction."""

    def __init__(self, connection: Connection, schema: str, table: Table, before: Shape | None) -> None:
        self._connection = connection
        self._name = sql.Identifier(schema, table.name)
        self._says = f"{schema}.{table.name}"
        self._table = table
        # of a table that was made anew, numbers mean nothing
        same = before is not None and 0 != before.relation == table.relation
        self._before = before
        self._numbered = before if same else None
        self.changes: list[Change] = []

    def rename(self, has: dict[str, str]) -> None:
        """Give columns the names that they have in the source now; `has` is changed with them.

        Raises:
            SingerPostgresError: a name is taken by another column's values.
        """
        if self._numbered is None:
            return
        names = {number: name for name, (number, _) in self._numbered.columns.items() if number}
        for column in self._table.columns:
            was = names.get(column.number)
            if was == column.name or column.name not in has:
                if was is not None and was != column.name and was in has:
                    self._alter("RENAME COLUMN {} TO {}", sql.Identifier(was), sql.Identifier(column.name))
                    has[column.name] = has.pop(was)
                    self.changes.append(Change(column.name, "renamed", was, column.name))
                continue
            other = self._numbered.columns.get(column.name)
            if was is not None or (other is not None and other[0] != column.number):
                msg = (
                    f"{self._says}.{column.name} holds the values of another column, which had that name in the source "
                    f"before. Move it away, and the new one is added: ALTER TABLE {self._name.as_string()} "
                    f"RENAME COLUMN {sql.Identifier(column.name).as_string()} TO …;"
                )
                raise SingerPostgresError(msg)

    def retype(self, wanted: Mapping[str, str], has: dict[str, str]) -> dict[str, str]:
        """Widen columns whose values have become too large for them; `has` is changed with them.

        Returns:
            The types, by name, of columns that stay as they are and take the source's values by a cast.

        Raises:
            SingerPostgresError: a column can't hold the values as they are.
        """
        casts = {}
        for column in self._table.columns:
            there, here = wanted[column.name], has.get(column.name)
            if here is None or here == there:
                continue
            if here == "text" or types.holds(here, there):
                casts[column.name] = here
                was = self._before.columns.get(column.name) if self._before else None
                if was and was[1] != column.type:
                    self.changes.append(Change(column.name, "narrowed", was[1], column.type))
            elif types.widens(here, there):
                made_again = views.alter_type(self._connection, self._name, column.name, there)
                has[column.name] = there
                self.changes.append(Change(column.name, "widened", here, there, tuple(made_again)))
            else:
                self._refuse_type(column, there, here)
        return casts

    def _refuse_type(self, column: WireColumn, there: str, here: str) -> None:
        quoted = sql.Identifier(column.name).as_string()
        table = self._name.as_string()
        msg = (
            f"{self._says}.{column.name} is {here}, and {self._table.schema}.{self._table.name}.{column.name} of the "
            f"source is {there} now: its values would be altered or refused. Change it, with the views that use it: "
            f"ALTER TABLE {table} ALTER COLUMN {quoted} TYPE {there}; or keep the old values apart, and the new column "
            f"is added: ALTER TABLE {table} RENAME COLUMN {quoted} TO …;"
        )
        raise SingerPostgresError(msg)

    def add(self, wanted: Mapping[str, str], has: dict[str, str]) -> None:
        """Add the columns that are missing here. Old rows get what they have in the source, where that is one value."""
        columns = {column.name: column for column in self._table.columns}
        missing = {name: type_ for name, type_ in wanted.items() if name not in has}
        if not missing:
            return
        actions, defaults = [], []
        for name, type_ in missing.items():
            action = sql.SQL("ADD COLUMN {} {}").format(sql.Identifier(name), sql.SQL(type_))
            past = columns[name].past if name in columns and self._is_new(columns[name]) else None
            if past is not None:
                # the server notes a constant for the rows that are there, and rewrites none of them
                action += sql.SQL(" DEFAULT {}").format(sql.Literal(past))
                defaults.append(sql.SQL("ALTER COLUMN {} DROP DEFAULT").format(sql.Identifier(name)))
            actions.append(action)
            if name in columns:
                self.changes.append(Change(name, "added", None, type_))
        self._alter("{}", sql.SQL(", ").join(actions))
        if defaults:
            self._alter("{}", sql.SQL(", ").join(defaults))
        has.update(missing)

    def _is_new(self, column: WireColumn) -> bool:
        return self._numbered is not None and column.number > self._numbered.width

    def drop(self) -> None:
        """Note the columns that are no longer read. They stay here."""
        if self._before is None:
            return
        names = {column.name for column in self._table.columns}
        renamed = {change.was for change in self.changes if change.change == "renamed"}
        for name, (_, type_) in self._before.columns.items():
            if name not in names and name not in renamed:
                self.changes.append(Change(name, "dropped", type_))

    def _alter(self, action: str, *parts: sql.Composable) -> None:
        self._connection.execute(sql.SQL("ALTER TABLE {} ").format(self._name) + sql.SQL(action).format(*parts))


def record(connection: Connection, run: StreamRun, changes: Iterable[Change]) -> None:
    """Write changes down, in the transaction that makes them."""
    statement = sql.SQL(
        "INSERT INTO {} (source, stream, table_name, column_name, change, was, becomes, run_id) "
        "VALUES (%s, %s, %s, %s, %s, %s, %s, %s)"
    ).format(sql.SQL(sql.Identifier(run.schema, TABLE.name).as_string().replace("%", "%%")))
    for change in changes:
        about = (change.column, change.change, change.was, change.becomes)
        connection.execute(statement, [run.source, run.stream, run.table, *about, run.run_id])
