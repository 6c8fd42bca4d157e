"""Sets Meltano's bookmarks back to what the warehouse holds, or to a given bookmark."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from singer_postgres.core.bookmark_order import comparable, reaches
from singer_postgres.core.errors import BusyError as LockedError
from singer_postgres.core.source import stream_query
from singer_postgres.core.warehouse import loaded_columns
from singer_postgres.core.warehouse.connections import WarehouseConnector
from singer_postgres.core.warehouse.load_parts import LoadParts
from singer_postgres.core.warehouse.run_lock import RunLock
from singer_postgres.core.wire import FIRST_LOAD, LOG, SHAPE
from tidemark.errors import BusyError, UsageError
from tidemark.inspect import named_streams
from tidemark.inspect.state.comparison import StateComparison, Status, compare
from tidemark.project import connections, database_settings, meltano_state, state_lock
from tidemark.project.file_locks import hold

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from tidemark.project.directory import Project
    from tidemark.project.sources import SourceDefinition

BEGINNING = "beginning"


@dataclass(frozen=True)
class Rewound:
    """A rewound stream, with its bookmark before and after; None for the beginning."""

    stream: str
    before: str | None
    after: str | None


def rewind(project: Project, streams: Sequence[str], *, to: str | None, source: str | None = None) -> list[Rewound]:
    """Rewind `streams`, or by default all streams whose state is ahead of the warehouse.

    Args:
        to: a bookmark, or BEGINNING; None for what the warehouse holds.
        source: the only source that is meant; None for all.

    Raises:
        UsageError: a stream is unknown, or `to` is past what the warehouse holds.
        BusyError: a run is active.
    """
    meant = named_streams.by_source(project, streams, source)
    with hold(project.pipeline_lock, doing="running the pipeline"):
        # everything is compared and checked before the first state is changed
        chosen = {each: _chosen(compare(project, each), each, names, to) for each, names in meant.items()}
        entries = {each: {found.stream: _entry(found, to) for found in of_it} for each, of_it in chosen.items()}
        done = []
        for each, of_it in chosen.items():
            for compared in of_it:
                entry = entries[each][compared.stream]
                after = None if entry is None else str(entry["replication_key_value"])
                done.append(Rewound(compared.name, compared.bookmark, after))
            if of_it:
                with _locked(project, each, of_it) as warehouse, warehouse.connect_once() as connection:
                    with state_lock.alone(connection, each):
                        meltano_state.put(project, each, entries[each])
                    parts = LoadParts(each.raw_schema, "")
                    for compared in of_it:
                        # it would go on where its parts are
                        parts.close(connection, compared.stream)
    return done


def _chosen(
    found: Sequence[StateComparison], source: SourceDefinition, streams: Sequence[str], to: str | None
) -> list[StateComparison]:
    """Return the comparisons of the streams to rewind.

    Raises:
        UsageError: a stream is unknown.
    """
    known = {compared.stream: compared for compared in found}
    if unknown := [source.shown(name) for name in streams if name not in known]:
        names = ", ".join(compared.name for compared in found) or "none"
        raise UsageError(f"There is no state of {', '.join(unknown)}; streams with state: {names}.")
    if streams and to is not None:
        return [known[name] for name in streams]
    return [each for each in found if each.fit is Status.ahead and (not streams or each.stream in streams)]


def _entry(compared: StateComparison, to: str | None) -> Mapping[str, Any] | None:
    """Return the entry that the tap will find; None for no entry, so that it reads from the beginning."""
    held = compared.held
    if compared.entry.get(LOG):
        if to not in {None, BEGINNING}:
            raise UsageError(f"{compared.stream} follows the log, so it can only be rewound to `{BEGINNING}`.")
        return None
    if to is None:
        # a bookmark of another kind belongs to an earlier replication key
        value = held.bookmark if held.bookmark and comparable(held.bookmark, compared.bookmark or "") else None
    elif to == BEGINNING:
        value = None
    elif held.bookmark is None or not (to in compared.passed or _reaches(held.bookmark, to)):
        holds = f"up to {held.bookmark}" if held.bookmark else "without a bookmark"
        raise UsageError(
            f"--to is {to}, and the warehouse holds {compared.stream} {holds}: write a value of that kind that is not "
            f"later, or `{BEGINNING}`."
        )
    else:
        value = to
    if value is None or "replication_key" not in compared.entry or not _holds_all_columns(compared):
        return None
    return {**compared.entry, "replication_key_value": value, FIRST_LOAD: []}


def _reaches(bookmark: str, to: str) -> bool:
    return comparable(bookmark, to) and reaches(bookmark, to)


def _holds_all_columns(compared: StateComparison) -> bool:
    """Return whether the warehouse has all the columns that were read according to Meltano's state."""
    if not (read := compared.entry.get(SHAPE)):
        return True
    if not compared.held.columns:
        return False
    columns = loaded_columns.LoadedColumns.from_json(compared.held.columns).columns
    here = {name: column.attnum for name, column in columns.items() if column.read}
    return all(here.get(name) == number for name, number, *_ in stream_query.ReadColumns.from_json(read).columns)


@contextmanager
def _locked(
    project: Project, source: SourceDefinition, chosen: Sequence[StateComparison]
) -> Iterator[WarehouseConnector]:
    """Keep out runs on other machines: at their end they would overwrite the new bookmarks."""
    side = database_settings.warehouse(project, source)
    schema = side.default_target_schema
    warehouse = WarehouseConnector(lambda: connections.parameters(side), schema)
    lock = RunLock(warehouse)
    try:
        for compared in chosen:
            lock.take(compared.stream, schema, compared.held.table)
        yield warehouse
    except LockedError as error:
        raise BusyError(str(error)) from error
    finally:
        lock.close()
