"""Follows changes of a source's table. A change that could lose a value is refused, and the error names the column.

`_tidemark_state` keeps which columns were read before. So a column that the source dropped can be told from a column
that an analyst added in the warehouse.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from singer_postgres.core import widening
from singer_postgres.core.errors import ColumnRecreatedError, ColumnRetypedError, WarehouseAlteredError
from singer_postgres.core.sql_compat import Error, sql
from singer_postgres.core.warehouse import change_triggers, dependent_views
from singer_postgres.core.warehouse.loaded_columns import loaded_columns
from singer_postgres.core.warehouse.system_tables import SystemTable

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    import psycopg

    from singer_postgres.core.warehouse.loaded_columns import Loaded, LoadedColumns
    from singer_postgres.core.warehouse.run_history import StreamRun
    from singer_postgres.core.wire import Table, WireColumn

    Connection = psycopg.Connection[Any]

LOADED_XID, DELETED_AT = "_tidemark_loaded_xid", "_sdc_deleted_at"
TABLE = SystemTable(
    "_tidemark_schema_changes",
    (
        """
        -- One row per column that changed in the source, or that was repaired in the warehouse.
        -- Written by: the target, in the transaction that follows the change.
        -- Read by: Airflow's page of streams.
        CREATE TABLE {} (
            id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, -- a number, in the order of the changes
            source text NOT NULL, -- the source database, as in `_tidemark_runs`
            stream text NOT NULL, -- the Singer stream
            table_name text NOT NULL, -- the stream's table in this schema
            column_name text NOT NULL, -- the column, by its name after the change
            change text NOT NULL, -- added, dropped, renamed, widened, narrowed or restored
            was text, -- the type or name before the change
            becomes text, -- the type or name after it
            run_id text NOT NULL, -- the run that followed the change
            changed_at timestamptz NOT NULL DEFAULT now() -- when it did so
        )
        """,
    ),
)


@dataclass(frozen=True)
class Change:
    """A change of one column.

    `added`, `dropped`, `renamed`, `widened`, `narrowed` (only in the source), or `restored` (it was lost here).
    """

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
            "dropped": "; the warehouse keeps it with its values",
            "narrowed": "; the warehouse's column stays as it is, and takes the values",
            "restored": "; it was dropped or altered in the warehouse",
        }
        made_again = f"; recreated views: {', '.join(self.views)}" if self.views else ""
        return text + kept.get(self.change, "") + made_again


class SchemaDrift:
    """The changes that fit one warehouse table to its source's table. They run in the caller's transaction."""

    def __init__(
        self, connection: Connection, schema: str, table: Table, before: LoadedColumns | None, *, whole: bool = False
    ) -> None:
        """Compare only. This changes nothing yet.

        Args:
            before: the columns that were loaded until now.
            whole: this run reads all rows, even if they were read before.
        """
        self._connection = connection
        self._schema = schema
        self._name = sql.Identifier(schema, table.name)
        self._says = f"{schema}.{table.name}"
        self._table = table
        self._whole = whole
        # attnums are only comparable within one table: a recreated table has its own
        same = before is not None and 0 != before.table_oid == table.table_oid
        self._before = before
        self._by_attnum = before if same else None
        self._origin: dict[str, str] = {}
        """By name: the name that a column here had before it was renamed."""
        self.changes: list[Change] = []
        self.watched: dict[str, int] = {}
        """By name: the attnum of the old column whose values are here. They must equal the new column's values."""

    def rename(self, wanted: Mapping[str, str], has: dict[str, str]) -> None:
        """Rename columns as the source did, and update `has`.

        Raises:
            SingerPostgresError: another column's values have the name.
        """
        if self._by_attnum is None:
            return
        loaded = self._by_attnum.columns
        names = {column.attnum: name for name, column in loaded.items() if column.attnum}
        now = {column.attnum: column.name for column in self._table.columns}
        moves = {
            old: column.name
            for column in self._table.columns
            if (old := names.get(column.attnum, column.name)) != column.name and old in has
        }
        for column in self._table.columns:
            holder = loaded.get(column.name)
            if column.name not in has or holder is None or holder.attnum in {0, column.attnum}:
                continue
            moves_to, is_key = now.get(holder.attnum), column.name in self._table.key
            if moves_to is not None and not is_key:
                # its values move to the name that they have now
                continue
            was = names.get(column.attnum)
            if was is not None and was in has:
                if not self._hold_the_same(column.name, was):
                    raise ColumnRecreatedError(self._is_anothers(column.name))
                # one column replaced the other and has its values, so both are right under either name
                del moves[was]
                if moves_to is not None:
                    del moves[column.name]
                    moves[was] = moves_to
            elif self._whole and self._follows(has[column.name], wanted[column.name]):
                moves.pop(column.name, None)
                self.watched[column.name] = holder.attnum
            else:
                raise ColumnRecreatedError(self._is_anothers(column.name))
        if taken := [name for was, name in moves.items() if name in has and name not in moves]:
            raise ColumnRecreatedError(self._is_anothers(taken[0]))
        self._move(moves, has)

    def _move(self, moves: Mapping[str, str], has: dict[str, str]) -> None:
        # they would log the new names' values under the old ones; dbt creates them again
        change_triggers.set_aside(self._connection, self._name, list(moves))
        # two columns may swap their names
        crossing = {was: f"_tidemark_{number}" for number, was in enumerate(moves) if moves[was] in moves}
        for was, between in crossing.items():
            self._rename_one(was, between)
        for was, name in moves.items():
            self._rename_one(crossing.get(was, was), name)
            self._origin[name] = was
            self.changes.append(Change(name, "renamed", was, name))
        types = {name: has.pop(was) for was, name in moves.items()}
        has.update(types)

    def _rename_one(self, was: str, name: str) -> None:
        self._alter("RENAME COLUMN {} TO {}", sql.Identifier(was), sql.Identifier(name))

    def _hold_the_same(self, name: str, other: str) -> bool:
        """Return whether two columns here have the same values, wherever the second has one."""
        row = self._connection.execute(
            sql.SQL(
                "SELECT NOT EXISTS (SELECT FROM {} WHERE {}::text <> {}::text OR ({} IS NULL) > ({} IS NULL))"
            ).format(self._name, *(sql.Identifier(each) for each in (name, other, name, other)))
        ).fetchone()
        return bool(row and row[0])

    @staticmethod
    def _follows(here: str, there: str) -> bool:
        return here == there or widening.holds(here, there) or widening.widens(here, there)

    def _is_anothers(self, name: str) -> str:
        return is_anothers(self._schema, self._table, name)

    def retype(self, wanted: Mapping[str, str], has: dict[str, str]) -> dict[str, str]:
        """Widen columns that are too small for the source's values now, and update `has`.

        Returns:
            The types, by name, of columns that stay unchanged and cast the source's values.

        Raises:
            SingerPostgresError: a column can't hold the values unchanged.
        """
        casts = {}
        for column in self._table.columns:
            there, here = wanted[column.name], has.get(column.name)
            if here is None:
                continue
            was = self._before.columns.get(self._origin.get(column.name, column.name)) if self._before else None
            if self._was_altered_here(was, column, there, here):
                self._restore(column, there, here)
                has[column.name] = there
            elif here == there:
                continue
            elif here == "text" or widening.holds(here, there):
                casts[column.name] = here
                if was and was.type != column.type:
                    self.changes.append(Change(column.name, "narrowed", was.type, column.type))
            elif widening.widens(here, there):
                made_again = dependent_views.alter_type(self._connection, self._name, column.name, there)
                has[column.name] = there
                self.changes.append(Change(column.name, "widened", here, there, tuple(made_again)))
            else:
                raise ColumnRetypedError(self._wrong_type(column, there, here))
        return casts

    @staticmethod
    def _was_altered_here(was: Loaded | None, column: WireColumn, there: str, here: str) -> bool:
        """Return whether somebody gave a column here a type that may have lost values."""
        if was is None or was.made is None or here == was.made:
            return False
        if here == there and was.type != column.type:
            # somebody followed the advice of an earlier error and gave it the source's type
            return False
        return not (widening.holds(here, was.made) or widening.widens(was.made, here))

    def _restore(self, column: WireColumn, there: str, here: str) -> None:
        """Give a column its type back, if this run reads all rows.

        Raises:
            SingerPostgresError: this run doesn't read all rows, or the type can't be changed back.
        """
        if not self._whole:
            msg = (
                f"{self._says}.{column.name} was altered in the warehouse, and is {here} now, so values may be lost: "
                f"read them again with {rewind(self._table)}."
            )
            raise WarehouseAlteredError(msg)
        if here == there:
            made_again: list[str] = []
        else:
            try:
                with self._connection.transaction():
                    made_again = dependent_views.alter_type(self._connection, self._name, column.name, there, cast=True)
            except Error as error:
                raise ColumnRetypedError(self._wrong_type(column, there, here)) from error
        self.changes.append(Change(column.name, "restored", here, there, tuple(made_again)))

    def _wrong_type(self, column: WireColumn, there: str, here: str) -> str:
        quoted = sql.Identifier(self._origin.get(column.name, column.name)).as_string()
        table = self._name.as_string()
        apart = f"ALTER TABLE {table} RENAME COLUMN {quoted} TO …;"
        if column.name in self._table.key:
            return (
                f"{self._says}.{column.name}, of the stream's key, is {here}, and {self._table.schema}."
                f"{self._table.name}.{column.name} of the source is {there} now. "
                f"{keep_apart(self._schema, self._table)}"
            )
        return (
            f"{self._says}.{column.name} is {here}, and {self._table.schema}.{self._table.name}.{column.name} of the "
            f"source is {there} now: its values would be altered or refused. Rename the old column, and the next run "
            f"adds the new column: {apart}"
        )

    def add(self, wanted: Mapping[str, str], has: dict[str, str]) -> None:
        """Add missing columns. If all old rows have one value in the source, they get it here too.

        Raises:
            SingerPostgresError: the column was here before, and this run doesn't read all rows again.
        """
        columns = {column.name: column for column in self._table.columns}
        missing = {name: type_ for name, type_ in wanted.items() if name not in has}
        if not missing:
            return
        actions, defaults = [], []
        for name, type_ in missing.items():
            action = sql.SQL("ADD COLUMN {} {}").format(sql.Identifier(name), sql.SQL(type_))
            missing_value = columns[name].missing_value if name in columns and self._is_new(columns[name]) else None
            if name == LOADED_XID:
                # so models take all rows for changed, and miss none
                action += sql.SQL(" DEFAULT pg_current_xact_id()")
            elif missing_value is not None:
                # the server stores a constant default for existing rows, and rewrites none of them
                action += sql.SQL(" DEFAULT {}").format(sql.Literal(missing_value))
            if name == LOADED_XID or missing_value is not None:
                defaults.append(sql.SQL("ALTER COLUMN {} DROP DEFAULT").format(sql.Identifier(name)))
            actions.append(action)
            was_here = name in columns and self._was_here(columns[name])
            if was_here and not self._whole:
                msg = (
                    f"{self._says}.{name} was loaded before and is gone: it was dropped or renamed in the warehouse. "
                    f"Read its values again with {rewind(self._table)}."
                )
                raise WarehouseAlteredError(msg)
            if name in columns or (self._before is not None and name == DELETED_AT):
                restored = was_here or name not in columns
                self.changes.append(Change(name, "restored" if restored else "added", None, type_))
        self._alter("{}", sql.SQL(", ").join(actions))
        if defaults:
            self._alter("{}", sql.SQL(", ").join(defaults))
        has.update(missing)

    def _is_new(self, column: WireColumn) -> bool:
        return self._by_attnum is not None and column.attnum > self._by_attnum.max_attnum

    def _was_here(self, column: WireColumn) -> bool:
        """Return whether a missing column was loaded before. A table's column is known by attnum, a view's by name."""
        if self._before is None or self._before.table_oid != self._table.table_oid:
            return False
        if self._by_attnum is None:
            was = self._before.columns.get(column.name)
            return was is not None and was.read
        # the attnum of a column that the log had, and that the source has dropped since, is unknown
        return any(was.read and 0 != was.attnum == column.attnum for was in self._by_attnum.columns.values())

    def drop(self) -> None:
        """Note the columns that are no longer read. The warehouse keeps them."""
        if self._before is None:
            return
        names = {column.name for column in self._table.columns}
        renamed = {change.was for change in self.changes if change.change == "renamed"}
        for name, was in self._before.columns.items():
            if was.read and name not in names and name not in renamed:
                self.changes.append(Change(name, "dropped", was.type))

    def columns(self, has: Mapping[str, str]) -> LoadedColumns:
        """Return the columns that the table has now. `has` has all columns; a watched one still counts as the old."""
        return loaded_columns(self._table, has, self._before, same=self.is_same, attnums=self.watched)

    @property
    def is_same(self) -> bool:
        """Whether the source's table is still the same one."""
        return self._by_attnum is not None

    @property
    def names_before(self) -> dict[str, str]:
        """The old names of renamed columns, which they have until the caller commits."""
        return dict(self._origin)

    def _alter(self, action: str, *parts: sql.Composable) -> None:
        self._connection.execute(sql.SQL("ALTER TABLE {} ").format(self._name) + sql.SQL(action).format(*parts))


def is_anothers(schema: str, table: Table, name: str) -> str:
    """Return the error for a column here that holds another column's values."""
    what = f"{schema}.{table.name}.{name} holds the values of another column, which had that name in the source before."
    if name in table.key:
        return f"{what} It is the stream's key. {keep_apart(schema, table)}"
    return (
        f"{what} Rename it, and the next run adds the new one: ALTER TABLE "
        f"{sql.Identifier(schema, table.name).as_string()} RENAME COLUMN {sql.Identifier(name).as_string()} TO …;"
    )


def keep_apart(schema: str, table: Table) -> str:
    """Return the advice that works in every case."""
    return (
        "Keep the old rows in another table, and read all rows again: "
        f"ALTER TABLE {sql.Identifier(schema, table.name).as_string()} RENAME TO …; then {rewind(table)}."
    )


def rewind(table: Table) -> str:
    """Return the advice to read all rows of a stream again."""
    return f"`tidemark state rewind {table.schema}-{table.name} --to beginning`, and run this again"


def record(connection: Connection, run: StreamRun, changes: Iterable[Change]) -> None:
    """Record changes, in the transaction that makes them."""
    statement = sql.SQL(
        "INSERT INTO {} (source, stream, table_name, column_name, change, was, becomes, run_id) "
        "VALUES (%s, %s, %s, %s, %s, %s, %s, %s)"
    ).format(TABLE.in_statement(run.schema))
    for change in changes:
        about = (change.column, change.change, change.was, change.becomes)
        connection.execute(statement, [run.source, run.stream, run.table, *about, run.run_id])
        run.totals.add(connection, schema_changes=1)
