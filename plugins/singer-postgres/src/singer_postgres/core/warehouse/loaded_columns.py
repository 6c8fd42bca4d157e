"""What of a source's table is loaded here: kept in `_tidemark_state`, beside the bookmark."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping

    from singer_postgres.core.wire import Table


class Loaded(NamedTuple):
    """A column here.

    Attributes:
        number: that of the source's column whose values it holds; 0 if that is not known.
        type: the source's column was to have here.
        made: its type here; None if that was not kept.
        read: the source's column is still there, and selected.
    """

    number: int
    type: str
    made: str | None = None
    read: bool = True


@dataclass(frozen=True)
class LoadedColumns:
    """What of the source's table was read at some time, and what was made for it here.

    Attributes:
        relation: tells the table from another that had its name before; 0 if that is not known.
        width: the largest number that a column had.
        columns: by their name here.
    """

    relation: int
    width: int
    columns: Mapping[str, Loaded]

    def to_json(self) -> list[Any]:
        """Return it as `_tidemark_state` has it."""
        return [self.relation, self.width, {name: list(column) for name, column in self.columns.items()}]

    @classmethod
    def from_json(cls, value: Any) -> LoadedColumns:
        """Read what `to_json` gave, of this release or one before it."""
        relation, width, columns = value
        return cls(relation, width, {name: Loaded(*column) for name, column in columns.items()})


def loaded_columns(
    table: Table,
    has: Mapping[str, str],
    before: LoadedColumns | None = None,
    *,
    same: bool = False,
    numbers: Mapping[str, int] | None = None,
) -> LoadedColumns:
    """Return what is loaded of `table` into one with the columns `has`.

    Args:
        before: what was until now; of that, columns stay known which are no longer read.
        same: the source's table is the one that it was.
        numbers: of columns that are not to be taken for the source's yet.
    """
    columns = {
        column.name: Loaded((numbers or {}).get(column.name, column.attnum), column.type, has.get(column.name))
        for column in table.columns
    }
    for name, was in (before.columns if before else {}).items():
        if name in has and name not in columns:
            columns[name] = was._replace(number=was.number if same else 0, made=has[name], read=False)
    return LoadedColumns(table.table_oid, table.max_attnum, columns)
