"""Sets Meltano's bookmarks back to what the warehouse holds, or to where a stream is to be read from again."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from singer_postgres.core.errors import BusyError as LockedError
from singer_postgres.core.source import select
from singer_postgres.core.warehouse import loaded_columns
from singer_postgres.core.warehouse.connections import Warehouse
from singer_postgres.core.warehouse.run_lock import RunLock
from singer_postgres.core.warehouse.state_table import comparable, reaches
from singer_postgres.core.wire import FIRST_LOAD, SHAPE
from tidemark.errors import BusyError, UsageError
from tidemark.inspect.state.standing import Fit, Standing, standings
from tidemark.project import connections, meltano_state, settings
from tidemark.project.file_locks import hold

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from tidemark.project.directory import Project

BEGINNING = "beginning"


@dataclass(frozen=True)
class Rewound:
    """What was done with one stream: its bookmark before and after, None for the beginning."""

    stream: str
    before: str | None
    after: str | None


def rewind(project: Project, streams: Sequence[str], *, to: str | None) -> list[Rewound]:
    """Rewind `streams`, or else all whose state is ahead of the warehouse.

    Args:
        to: a bookmark, or BEGINNING; None for what the warehouse holds.

    Raises:
        UsageError: a stream is unknown, or `to` is past what the warehouse holds.
        BusyError: a run is under way.
    """
    with hold(project.pipeline_lock, doing="running the pipeline"):
        found = {standing.stream: standing for standing in standings(project)}
        if unknown := [name for name in streams if name not in found]:
            known = ", ".join(found) or "none"
            raise UsageError(f"There is no state of {', '.join(unknown)}; there is of {known}.")
        chosen = [found[name] for name in streams] if streams else [s for s in found.values() if s.fit is Fit.ahead]
        if to is None:
            chosen = [standing for standing in chosen if standing.fit is Fit.ahead]
        done, entries = [], {}
        for standing in chosen:
            entry = _entry(standing, to)
            after = None if entry is None else str(entry["replication_key_value"])
            done.append(Rewound(standing.stream, standing.bookmark, after))
            entries[standing.stream] = entry
        with _locked(project, chosen):
            meltano_state.put(project, entries)
    return done


def _entry(standing: Standing, to: str | None) -> Mapping[str, Any] | None:
    """Return what the tap is to find; None for nothing, so that it begins at the beginning."""
    held = standing.held
    if to is None:
        # a bookmark of another kind is that of an earlier replication key
        value = held.bookmark if held.bookmark and comparable(held.bookmark, standing.bookmark or "") else None
    elif to == BEGINNING:
        value = None
    elif held.bookmark is None or not (to in standing.passed or _reaches(held.bookmark, to)):
        holds = f"up to {held.bookmark}" if held.bookmark else "no bookmark's rows"
        raise UsageError(
            f"--to is {to}, and the warehouse holds {standing.stream} {holds}: write a value like that, and not past "
            f"it, or `{BEGINNING}`."
        )
    else:
        value = to
    if value is None or "replication_key" not in standing.entry or not _holds_all_columns(standing):
        return None
    return {**standing.entry, "replication_key_value": value, FIRST_LOAD: []}


def _reaches(bookmark: str, to: str) -> bool:
    return comparable(bookmark, to) and reaches(bookmark, to)


def _holds_all_columns(standing: Standing) -> bool:
    """Return whether the warehouse has the rows with all the columns that Meltano's state says were read."""
    if not (read := standing.entry.get(SHAPE)):
        return True
    if not standing.held.shape:
        return False
    columns = loaded_columns.Shape.from_json(standing.held.shape).columns
    here = {name: column.number for name, column in columns.items() if column.read}
    return all(here.get(name) == number for name, number, *_ in select.Shape.from_json(read).columns)


@contextmanager
def _locked(project: Project, chosen: Sequence[Standing]) -> Iterator[None]:
    """Keep runs out that were started elsewhere: their end would overwrite what is set."""
    _, side = settings.read(project)
    schema = side.default_target_schema
    lock = RunLock(Warehouse(lambda: connections.parameters(side), schema))
    try:
        for standing in chosen:
            lock.take(standing.stream, schema, standing.held.table)
        yield
    except LockedError as error:
        raise BusyError(str(error)) from error
    finally:
        lock.close()
