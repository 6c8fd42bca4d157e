"""The source's columns that a table holds. `_tidemark_state` keeps them beside the bookmark."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping

    from singer_postgres.core.wire import Table


class Loaded(NamedTuple):
    """A column of the warehouse's table.

    Attributes:
        attnum: the attnum of the source's column whose values it holds; 0 if unknown.
        type: the type that the source's column has in the warehouse's terms.
        made: the type that this column has; None if an earlier release didn't record it.
        read: the source still has the column, and the stream selects it.
    """

    attnum: int
    type: str
    made: str | None = None
    read: bool = True


@dataclass(frozen=True)
class LoadedColumns:
    """The columns that were read from a source's table, and the columns that were created for them.

    Attributes:
        table_oid: the oid of the source's table, which differs for another table of the same name; 0 if unknown.
        max_attnum: the largest attnum of the source's table at that time.
        columns: the columns, by their name in the warehouse.
    """

    table_oid: int
    max_attnum: int
    columns: Mapping[str, Loaded]

    def to_json(self) -> list[Any]:
        """Return the value that `_tidemark_state` stores."""
        return [self.table_oid, self.max_attnum, {name: list(column) for name, column in self.columns.items()}]

    @classmethod
    def from_json(cls, value: Any) -> LoadedColumns:
        """Read a value of `to_json`, from this release or an earlier one."""
        table_oid, max_attnum, columns = value
        return cls(table_oid, max_attnum, {name: Loaded(*column) for name, column in columns.items()})


def loaded_columns(
    table: Table,
    has: Mapping[str, str],
    before: LoadedColumns | None = None,
    *,
    same: bool = False,
    attnums: Mapping[str, int] | None = None,
) -> LoadedColumns:
    """Return the columns of `table` that a warehouse table with the columns `has` holds.

    Args:
        before: the loaded columns until now. Columns that are no longer read stay known.
        same: the source's table is still the same one.
        attnums: what to record instead of the source's attnums, for columns that still hold another column's values.
    """
    columns = {
        column.name: Loaded((attnums or {}).get(column.name, column.attnum), column.type, has.get(column.name))
        for column in table.columns
    }
    for name, was in (before.columns if before else {}).items():
        if name in has and name not in columns:
            columns[name] = was._replace(attnum=was.attnum if same else 0, made=has[name], read=False)
    return LoadedColumns(table.table_oid, table.max_attnum, columns)
