"""How far the warehouse is behind the log of a source, and how each LOG_BASED stream stands in it."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any

import psycopg
from psycopg import sql

from singer_postgres.core.errors import BusyError, SlotGoneError, SlotMissingError
from singer_postgres.core.lsn import lsn_of
from singer_postgres.core.source import log_tables
from singer_postgres.core.source.identity import identity
from singer_postgres.core.warehouse import slot_table, state_table
from tidemark.errors import TidemarkError
from tidemark.inspect.tables import printed_size
from tidemark.project import connections, database_settings

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from tidemark.project.directory import Project
    from tidemark.project.sources import SourceDefinition

    Connection = psycopg.Connection[Any]

# how long what a run saw in the source is news; a run that follows looks once a minute
_NEWS = "10 minutes"
# a warehouse that no run of this release has loaded lacks the columns
_SLOTS = """
    select source, slot, position, lag_seconds, (seen ->> 'retained_bytes')::bigint as retained_bytes,
        (seen ->> 'behind_bytes')::bigint as behind_bytes
    from (
        select source, slot, position::text as position, loaded_at,
            greatest(0, extract(epoch from now() - committed_at))::float8 as lag_seconds,
            case when (to_jsonb(slots) ->> 'measured_at')::timestamptz > now() - interval {news}
                then to_jsonb(slots) end as seen
        from {table} slots
    ) found order by loaded_at desc
"""
_STREAMS = """
    select source, stream, slot, coalesce(is_loading, false) as is_loading, repair from (
        select source, stream, to_jsonb(state) ->> 'slot' as slot,
            (to_jsonb(state) ->> 'is_loading')::boolean as is_loading, to_jsonb(state) ->> 'repair' as repair
        from {} state
    ) found where slot is not null or repair is not null order by stream
"""


class LogState(StrEnum):
    """How a LOG_BASED stream stands."""

    following = "following"
    loading = "loading"
    doubted = "to be repaired"
    left = "left the log"


# streams that are as fresh as their slot
FRESH = frozenset({LogState.following, LogState.doubted})


@dataclass(frozen=True)
class LogStream:
    """A LOG_BASED stream. `why` says what happened, if it must be repaired."""

    stream: str
    state: LogState
    why: str | None = None


@dataclass(frozen=True)
class LogStatus:
    """How far the warehouse has the log of one slot.

    Attributes:
        lag_bytes: the WAL between the warehouse's position and the end of the log; None if the source does not answer.
        lag_seconds: the age of the source's state that the warehouse has all of.
        fault: why no run can follow the slot; None if one can, or the source does not answer.
    """

    source: str
    slot: str
    position: str
    lag_bytes: int | None
    lag_seconds: float | None
    streams: tuple[LogStream, ...]
    fault: str | None = None

    def as_dict(self) -> dict[str, object]:
        """Return it as a JSON object."""
        return {
            "side": "log",
            "source": self.source,
            "slot": self.slot,
            "position": self.position,
            "lag_bytes": self.lag_bytes,
            "lag_seconds": None if self.lag_seconds is None else round(self.lag_seconds, 1),
            "fault": self.fault,
            "streams": [{"stream": each.stream, "state": each.state.value, "why": each.why} for each in self.streams],
        }

    @property
    def lag(self) -> str:
        """How far it is behind, in words."""
        size = "the source does not say how much" if self.lag_bytes is None else printed_size(self.lag_bytes)
        return size if self.lag_seconds is None else f"{size}, {self.lag_seconds:,.0f} s"


def state_of(slot: str | None, repair: str | None, *, is_loading: bool) -> LogState:
    """Return how a stream stands by its row of `_tidemark_state`.

    >>> state_of("s", None, is_loading=False).value, state_of(None, "its merge failed", is_loading=False).value
    ('following', 'left the log')
    """
    if slot is None:
        return LogState.left
    if is_loading:
        return LogState.loading
    return LogState.following if repair is None else LogState.doubted


def tables_there(connection: Connection, schema: str) -> bool:
    """Return whether a schema has the tables of slots and of state."""
    names = [sql.Identifier(schema, each.TABLE.name).as_string(connection) for each in (slot_table, state_table)]
    row = connection.execute(
        "select to_regclass(%s) is not null and to_regclass(%s) is not null as there", names
    ).fetchone()
    return bool(row and (row["there"] if isinstance(row, dict) else row[0]))


def slot_rows(connection: Connection, schema: str) -> Sequence[Mapping[str, Any]]:
    """Return the slots of a schema; those that were loaded last come first.

    Each has source, slot, position and lag_seconds; retained_bytes and behind_bytes too, if a run has just seen them.
    """
    table = sql.Identifier(schema, slot_table.TABLE.name)
    return _rows(connection, sql.SQL(_SLOTS).format(table=table, news=sql.Literal(_NEWS)))


def stream_rows(connection: Connection, schema: str) -> Sequence[Mapping[str, Any]]:
    """Return the LOG_BASED streams of a schema: source, stream, slot, is_loading and repair."""
    return _rows(connection, sql.SQL(_STREAMS).format(sql.Identifier(schema, state_table.TABLE.name)))


def _rows(connection: Connection, query: sql.Composed) -> Sequence[Mapping[str, Any]]:
    cursor = connection.execute(query)
    names = [column.name for column in cursor.description or ()]
    return [row if isinstance(row, dict) else dict(zip(names, row, strict=True)) for row in cursor.fetchall()]


def of_source(project: Project, source: SourceDefinition) -> list[LogStatus]:
    """Return the status of a source's slots; none if it has no LOG_BASED streams.

    Raises:
        TidemarkError: the warehouse can't be reached.
    """
    with connections.connect(database_settings.warehouse(project, source)) as connection:
        if not tables_there(connection, source.raw_schema):
            return []
        slots, streams = slot_rows(connection, source.raw_schema), stream_rows(connection, source.raw_schema)
    if not slots:
        return []
    # the row of a slot that no stream follows any more stays
    names = {(each["source"], each["slot"]) for each in streams}
    followed = [row for row in slots if (row["source"], row["slot"]) in names]
    source_id, end, faults = _look(project, source, followed)
    # without an answer, the database that was loaded last
    source_id = source_id or slots[0]["source"]
    found = []
    for row in (each for each in slots if each["source"] == source_id):
        # a stream that left names no slot, and a source usually has one
        own = [each for each in streams if each["source"] == source_id and each["slot"] in {row["slot"], None}]
        fault = faults.get(row["slot"])
        # what other errors say is no doubt about the rows
        doubt = str(fault) if isinstance(fault, SlotGoneError) else None
        found.append(
            LogStatus(
                *(source.name, row["slot"], row["position"]),
                lag_bytes=None if end is None else max(0, lsn_of(end) - lsn_of(row["position"])),
                lag_seconds=row["lag_seconds"],
                streams=tuple(
                    LogStream(
                        each["stream"],
                        state_of(each["slot"], each["repair"] or doubt, is_loading=each["is_loading"] and not doubt),
                        each["repair"] or doubt,
                    )
                    for each in own
                ),
                fault=str(fault) if fault else None,
            )
        )
    return found


def _look(
    project: Project, source: SourceDefinition, slots: Sequence[Mapping[str, Any]]
) -> tuple[str | None, str | None, dict[str, SlotMissingError]]:
    """Return the source's identity, where its log ends, and what is wrong with its slots.

    A source that does not answer has no identity and no end, and a standby has no end.

    Args:
        slots: those that streams follow, maybe of several databases.
    """
    source_id = end = None
    faults: dict[str, SlotMissingError] = {}
    with (
        suppress(TidemarkError, psycopg.Error),
        connections.connect(database_settings.source(project, source)) as connection,
    ):
        source_id = identity(connection)
        for name in (row["slot"] for row in slots if row["source"] == source_id):
            try:
                # one that is being made is no fault
                with suppress(BusyError):
                    log_tables.slot(connection, name)
            except SlotMissingError as error:
                faults[name] = error
        # this comes last, because a standby raises
        end = log_tables.flush_lsn(connection)
    return source_id, end, faults
