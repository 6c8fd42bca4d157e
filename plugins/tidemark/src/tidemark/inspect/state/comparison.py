"""Compares Meltano's state of each stream with the warehouse. State that is ahead would make a run skip rows."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from psycopg import sql

from singer_postgres.core.bookmark_order import reaches
from singer_postgres.core.source import identity
from singer_postgres.core.warehouse import tables
from singer_postgres.core.warehouse.state_ahead import past_bookmarks, rows_missed
from singer_postgres.core.warehouse.state_table import TABLE, LoadedState, StateTable
from singer_postgres.core.wire import FIRST_LOAD, LOG
from tidemark.local import databases
from tidemark.project import connections, meltano_state

if TYPE_CHECKING:
    from collections.abc import Mapping

    import psycopg

    from tidemark.project.database_settings import Warehouse
    from tidemark.project.directory import Project
    from tidemark.project.sources import SourceDefinition

    Connection = psycopg.Connection[Any]


class Status(StrEnum):
    """How Meltano's state relates to what the warehouse holds."""

    fits = "fits"
    behind = "behind"
    ahead = "ahead"
    elsewhere = "of another source"


@dataclass(frozen=True)
class StateComparison:
    """The comparison of one stream.

    Attributes:
        entry: the stream's entry in Meltano's state, as the tap wrote it.
        held: what the warehouse holds.
        said: in words, what the next run will do.
        passed: earlier bookmarks, for keys whose order only the source knows.
    """

    source: SourceDefinition
    stream: str
    entry: Mapping[str, Any]
    held: LoadedState
    fit: Status
    said: str
    passed: frozenset[str] = frozenset()

    @property
    def name(self) -> str:
        """The stream's name, with its source's if there are several."""
        return self.source.shown(self.stream)

    @property
    def bookmark(self) -> str | None:
        """The bookmark from which the next run reads on; of a LOG_BASED stream, its position in the log."""
        if log := self.entry.get(LOG):
            return str(log[1])
        value = self.entry.get("replication_key_value")
        return None if value is None else str(value)

    def as_dict(self) -> dict[str, object]:
        """Return it as a JSON object."""
        return {
            "source": self.source.name,
            "stream": self.stream,
            "fit": self.fit.value,
            "meltano": self.bookmark,
            "warehouse": self.held.bookmark,
            "said": self.said,
        }


def compare(project: Project, source: SourceDefinition) -> list[StateComparison]:
    """Return the comparison of each stream of a source in Meltano's state or in the warehouse.

    Raises:
        TidemarkError: a database can't be reached or used.
    """
    databases.try_own(project, [source])
    database, warehouse = databases.bring_up(project, source)
    entries = meltano_state.entries(project, source)
    with connections.connect(database) as connection:
        name = identity.identity(connection)
    with connections.connect(warehouse) as connection:
        there, others = _held(connection, warehouse, name)
        comparing = _Comparing(connection, source, name, warehouse.default_target_schema)
        return [
            comparing.compared(stream, entries.get(stream, {}), there.get(stream), others.get(stream))
            for stream in sorted(entries.keys() | there.keys())
        ]


def _held(connection: Connection, warehouse: Warehouse, source: str) -> tuple[dict[str, LoadedState], dict[str, str]]:
    """Return what the warehouse holds of this source's streams, and the other sources' names by stream."""
    schema = warehouse.default_target_schema
    row = connection.execute("select to_regclass(%s)", [sql.Identifier(schema, TABLE.name).as_string()]).fetchone()
    if not row or row[0] is None:
        return {}, {}
    StateTable(schema).ensure(connection)
    rows = connection.execute(
        sql.SQL("select stream, source from {} where source <> {}").format(
            sql.Identifier(schema, TABLE.name), sql.Literal(source)
        )
    )
    return StateTable(schema).loaded_state(connection, source), dict(rows.fetchall())


@dataclass(frozen=True)
class _Comparing:
    """What the comparisons of a source's streams share. `source_id` is its identity; see `identity.identity`."""

    warehouse: Connection
    source: SourceDefinition
    source_id: str
    schema: str

    def compared(
        self, stream: str, entry: Mapping[str, Any], held: LoadedState | None, other: str | None
    ) -> StateComparison:
        """Return the comparison of a stream.

        Args:
            other: the identity of another source from which the warehouse has the stream.
        """
        if held is None and other is not None and entry:
            said = f"the warehouse has its rows from another database ({other})"
            return StateComparison(self.source, stream, entry, LoadedState(stream), Status.elsewhere, said)
        held = held or LoadedState(stream)
        held = held.in_table(empty=_is_empty(self.warehouse, self.schema, held.table))
        return StateComparison(self.source, stream, entry, held, *self._fit(stream, entry, held))

    def _fit(
        self, stream: str, entry: Mapping[str, Any], held: LoadedState
    ) -> tuple[Status, str] | tuple[Status, str, frozenset[str]]:
        """Return how the state fits, what the next run will do, and the earlier bookmarks if they matter."""
        if log := entry.get(LOG):
            fits = held.slot == log[0]
            return (Status.fits, "") if fits else (Status.ahead, f"changes of the slot {log[0]} would be missed")
        value = entry.get("replication_key_value")
        start = None if value is None else str(value)
        watermark, resumed, *_ = entry.get(FIRST_LOAD) or (None, ())
        table = StateTable(self.schema)
        ranges = [(node, first, after) for node, first, after in resumed]
        where = table, self.warehouse, self.source_id, stream
        if missed := rows_missed(*where, held, start, ranges, watermark):
            return Status.ahead, f"{missed} would be missed"
        if start is None:
            said = "the next run reads it from its beginning" if held.bookmark else "each run reads it whole"
            return Status.behind if held.bookmark else Status.fits, said
        passed = past_bookmarks(*where, held.bookmark) if held.bookmark else frozenset()
        if held.bookmark and not reaches(start, held.bookmark):
            return Status.behind, "the next run reads the rows between again, which changes nothing", passed
        return Status.fits, "", passed


def _is_empty(connection: Connection, schema: str, table: str) -> bool:
    row = connection.execute("select to_regclass(%s)", [sql.Identifier(schema, table).as_string()]).fetchone()
    return not row or row[0] is None or tables.is_empty(connection, schema, table)
