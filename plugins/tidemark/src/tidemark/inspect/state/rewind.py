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
from singer_postgres.core.warehouse.run_lock import RunLock
from singer_postgres.core.wire import FIRST_LOAD, SHAPE
from tidemark.errors import BusyError, UsageError
from tidemark.inspect.state.comparison import StateComparison, Status, compare
from tidemark.project import connections, database_settings, meltano_state
from tidemark.project.file_locks import hold

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from tidemark.project.directory import Project

BEGINNING = "beginning"


@dataclass(frozen=True)
class Rewound:
    """A rewound stream, with its bookmark before and after; None for the beginning."""

    stream: str
    before: str | None
    after: str | None


def rewind(project: Project, streams: Sequence[str], *, to: str | None) -> list[Rewound]:
    """Rewind `streams`, or by default all streams whose state is ahead of the warehouse.

    Args:
        to: a bookmark, or BEGINNING; None for what the warehouse holds.

    Raises:
        UsageError: a stream is unknown, or `to` is past what the warehouse holds.
        BusyError: a run is active.
    """
    with hold(project.pipeline_lock, doing="running the pipeline"):
        found = {compared.stream: compared for compared in compare(project)}
        if unknown := [name for name in streams if name not in found]:
            known = ", ".join(found) or "none"
            raise UsageError(f"There is no state of {', '.join(unknown)}; streams with state: {known}.")
        chosen = [found[name] for name in streams] if streams else [s for s in found.values() if s.fit is Status.ahead]
        if to is None:
            chosen = [compared for compared in chosen if compared.fit is Status.ahead]
        done, entries = [], {}
        for compared in chosen:
            entry = _entry(compared, to)
            after = None if entry is None else str(entry["replication_key_value"])
            done.append(Rewound(compared.stream, compared.bookmark, after))
            entries[compared.stream] = entry
        with _locked(project, chosen):
            meltano_state.put(project, entries)
    return done


def _entry(compared: StateComparison, to: str | None) -> Mapping[str, Any] | None:
    """Return the entry that the tap will find; None for no entry, so that it reads from the beginning."""
    held = compared.held
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
def _locked(project: Project, chosen: Sequence[StateComparison]) -> Iterator[None]:
    """Keep out runs on other machines: at their end they would overwrite the new bookmarks."""
    _, side = database_settings.read(project)
    schema = side.default_target_schema
    lock = RunLock(WarehouseConnector(lambda: connections.parameters(side), schema))
    try:
        for compared in chosen:
            lock.take(compared.stream, schema, compared.held.table)
        yield
    except LockedError as error:
        raise BusyError(str(error)) from error
    finally:
        lock.close()
