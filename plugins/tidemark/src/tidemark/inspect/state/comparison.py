"""Whether what Meltano says of each stream fits what the warehouse holds of it: never ahead, or rows are missed."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from psycopg import sql

from singer_postgres.core.source import identity
from singer_postgres.core.warehouse import tables
from singer_postgres.core.warehouse.state_table import TABLE, LoadedState, StateTable, reaches
from singer_postgres.core.wire import FIRST_LOAD
from tidemark.local import databases
from tidemark.project import connections, meltano_state

if TYPE_CHECKING:
    from collections.abc import Mapping

    import psycopg

    from tidemark.project.directory import Project
    from tidemark.project.settings import Warehouse

    Connection = psycopg.Connection[Any]


class Status(StrEnum):
    """How the one stands to the other."""

    fits = "fits"
    behind = "behind"
    ahead = "ahead"
    elsewhere = "of another source"


@dataclass(frozen=True)
class StateComparison:
    """One stream's.

    Attributes:
        entry: what Meltano holds of it, as the tap wrote it.
        held: what the warehouse holds.
        said: in words, what will come of it.
        passed: earlier bookmarks, where only the source knows which of two comes first.
    """

    stream: str
    entry: Mapping[str, Any]
    held: LoadedState
    fit: Status
    said: str
    passed: frozenset[str] = frozenset()

    @property
    def bookmark(self) -> str | None:
        """Up to where the next run takes the stream for loaded."""
        value = self.entry.get("replication_key_value")
        return None if value is None else str(value)

    def as_dict(self) -> dict[str, object]:
        """Return it as JSON has it."""
        return {
            "stream": self.stream,
            "fit": self.fit.value,
            "meltano": self.bookmark,
            "warehouse": self.held.bookmark,
            "said": self.said,
        }


def compare(project: Project) -> list[StateComparison]:
    """Return that of each stream that Meltano's state or the warehouse knows.

    Raises:
        TidemarkError: a database can't be reached or used.
    """
    databases.try_own(project)
    source, warehouse = databases.bring_up(project)
    entries = meltano_state.entries(project)
    with connections.connect(source) as connection:
        name = identity.identity(connection)
    with connections.connect(warehouse) as connection:
        there, others = _held(connection, warehouse, name)
        return [
            _compared(
                connection, warehouse, name, stream, entries.get(stream, {}), there.get(stream), others.get(stream)
            )
            for stream in sorted(entries.keys() | there.keys())
        ]


def _held(connection: Connection, warehouse: Warehouse, source: str) -> tuple[dict[str, LoadedState], dict[str, str]]:
    """Return what the warehouse holds of the source, and of streams that are another's, whose they are."""
    schema = warehouse.default_target_schema
    row = connection.execute("select to_regclass(%s)", [sql.Identifier(schema, TABLE).as_string()]).fetchone()
    if not row or row[0] is None:
        return {}, {}
    StateTable(schema).ensure(connection)
    rows = connection.execute(
        sql.SQL("select stream, source from {} where source <> {}").format(
            sql.Identifier(schema, TABLE), sql.Literal(source)
        )
    )
    return StateTable(schema).loaded_state(connection, source), dict(rows.fetchall())


def _compared(  # noqa: PLR0913, PLR0917 - all that is known of it
    connection: Connection,
    warehouse: Warehouse,
    source: str,
    stream: str,
    entry: Mapping[str, Any],
    held: LoadedState | None,
    other: str | None,
) -> StateComparison:
    if held is None and other is not None and entry:
        said = f"the warehouse has its rows from another database ({other})"
        return StateComparison(stream, entry, LoadedState(stream), Status.elsewhere, said)
    held = held or LoadedState(stream)
    held = held.in_table(empty=_is_empty(connection, warehouse.default_target_schema, held.table))
    value = entry.get("replication_key_value")
    start = None if value is None else str(value)
    watermark, resumed = entry.get(FIRST_LOAD) or (None, ())
    table = StateTable(warehouse.default_target_schema)
    ranges = [(node, first, after) for node, first, after in resumed]
    if missed := table.misses(connection, source, stream, held, start, ranges, watermark):
        return StateComparison(stream, entry, held, Status.ahead, f"{missed} would be missed")
    if start is None:
        said = "read from its beginning at the next run" if held.bookmark else "read whole at each run"
        return StateComparison(stream, entry, held, Status.behind if held.bookmark else Status.fits, said)
    passed = table.past_bookmarks(connection, source, stream, held.bookmark) if held.bookmark else frozenset()
    if held.bookmark and not reaches(start, held.bookmark):
        said = "the rows between are read again, which changes nothing"
        return StateComparison(stream, entry, held, Status.behind, said, passed)
    return StateComparison(stream, entry, held, Status.fits, "", passed)


def _is_empty(connection: Connection, schema: str, table: str) -> bool:
    row = connection.execute("select to_regclass(%s)", [sql.Identifier(schema, table).as_string()]).fetchone()
    return not row or row[0] is None or tables.is_empty(connection, schema, table)
