"""Meltano's state of the pipeline: reads and writes it."""

from __future__ import annotations

import json
import os
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

from singer_postgres.core.wire import LOG
from tidemark.errors import TidemarkError
from tidemark.project import meltano_project, variables

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from meltano.core.project import Project as MeltanoProject
    from meltano.core.state_service import StateService

    from tidemark.project.directory import Project
    from tidemark.project.sources import SourceDefinition

_DELIMITER = ":"


@dataclass(frozen=True)
class Bookmark:
    """A stream's replication key, and the value up to which the warehouse has all rows; or its slot, and a position."""

    key: str
    value: Any


def shown(value: Any) -> str:
    """Return a bookmark's value: an instant to the second, any other value unchanged."""
    if str(value).isdigit():
        # fromisoformat takes 20261201122 for the first of December, 12:02
        return str(value)
    try:
        return datetime.fromisoformat(value).strftime("%Y-%m-%d %H:%M:%S")
    except (TypeError, ValueError):
        return str(value)


def state_id(meltano: MeltanoProject, source: SourceDefinition) -> str:
    """Return the id of a source's state in Meltano."""
    # this expands variables in the environment's state_id_suffix
    meltano_project.plugin(meltano, source.tap)
    assert meltano.environment
    # Meltano reads this variable only from the process, not from .env
    suffix = os.environ.get("MELTANO_RUN_STATE_ID_SUFFIX") or meltano.environment.state_id_suffix
    return f"{meltano.environment.name}:{source.tap}-to-{source.target}{f':{suffix}' if suffix else ''}"


def bookmarks(project: Project, source: SourceDefinition) -> dict[str, Bookmark]:
    """Return each stream's bookmark in Meltano's state. Streams without a replication key have none."""
    found = {}
    for stream, entry in entries(project, source).items():
        if log := entry.get(LOG):
            found[stream] = Bookmark(*log[:2])
        elif entry.get("replication_key_value") is not None:
            found[stream] = Bookmark(entry["replication_key"], entry["replication_key_value"])
    return found


def entries(project: Project, source: SourceDefinition) -> dict[str, dict[str, Any]]:
    """Return everything that the tap has written about each stream into Meltano's state."""
    with _meltano_state(project) as service:
        name = state_id(service.project, source)
        found = _bookmarks(service, name)
        for each in _of_shards(service, name):
            # a shard that runs, or was killed, knows more of its streams
            found |= _bookmarks(service, each)
    return found


def put(project: Project, source: SourceDefinition, entries: Mapping[str, Mapping[str, Any] | None]) -> None:
    """Write what the tap will find in its state about some streams; None removes a stream.

    The caller keeps out runs: those of the streams, and those of other shards (`state_lock`).
    """
    with _meltano_state(project) as service:
        name = state_id(service.project, source)
        for each in _of_shards(service, name):
            if _bookmarks(service, each).keys() & entries.keys():
                _put(service, each, dict.fromkeys(entries))
        _put(service, name, entries)


def clear(project: Project, ids: Iterable[str]) -> None:
    """Clear state, so that the next runs load everything."""
    with _meltano_state(project) as service:
        for name in ids:
            for each in [name, *_of_shards(service, name)]:
                service.clear_state(each)


# A shard's run has a state id of its own: Meltano reads, changes and writes a state without a lock, so that of several
# runs of one id the last one would win. The state is merged into that of all shards before and after the run.


def begin_shard(project: Project, source: SourceDefinition, shard: str, streams: Iterable[str]) -> dict[str, str]:
    """Give a shard the state of its streams; return the variables with which Meltano uses that.

    Args:
        shard: such as `2-of-4`.
    """
    with _meltano_state(project) as service:
        name = state_id(service.project, source)
        own = {stream: entry for stream, entry in _bookmarks(service, name).items() if stream in set(streams)}
        of_shard = _shard_id(name, shard)
        service.set_state(of_shard, json.dumps({"singer_state": {"bookmarks": own}}))
        return {
            "MELTANO_RUN_STATE_ID_SUFFIX": of_shard.split(_DELIMITER)[-1],
            # the run has a directory of its own
            "MELTANO_DATABASE_URI": service.project.settings.get("database_uri"),
        }


def end_shard(project: Project, source: SourceDefinition, shard: str) -> None:
    """Merge a shard's state into that of all shards. The caller keeps out other runs that do so."""
    with _meltano_state(project) as service:
        name = state_id(service.project, source)
        of_shard = _shard_id(name, shard)
        if found := _bookmarks(service, of_shard):
            _put(service, name, found)
        service.clear_state(of_shard)


def shards(project: Project, source: SourceDefinition) -> list[str]:
    """Return the shards that have a state of their own, such as `2-of-4`: they run, or were killed."""
    with _meltano_state(project) as service:
        name = state_id(service.project, source)
        return [each.removeprefix(_shard_id(name, "")) for each in _of_shards(service, name)]


def _shard_id(name: str, shard: str) -> str:
    # an id consists of environment, plugins and perhaps a suffix
    has_suffix = name.count(_DELIMITER) > 1
    return f"{name}{'-' if has_suffix else _DELIMITER}shard-{shard}"


def _of_shards(service: StateService, name: str) -> list[str]:
    start = _shard_id(name, "")
    return sorted(each for each in service.state_store_manager.get_state_ids() if each.startswith(start))


def _bookmarks(service: StateService, name: str) -> dict[str, dict[str, Any]]:
    return dict(_payload(service, name).get("singer_state", {}).get("bookmarks", {}))


def _put(service: StateService, name: str, entries: Mapping[str, Mapping[str, Any] | None]) -> None:
    payload = _payload(service, name)
    bookmarks = payload.setdefault("singer_state", {}).setdefault("bookmarks", {})
    for stream, entry in entries.items():
        bookmarks.pop(stream, None)
        if entry is not None:
            bookmarks[stream] = entry
    service.set_state(name, json.dumps(payload))


def id_of(project: Project, source: SourceDefinition) -> str:
    """Return the id of a source's state."""
    return state_id(meltano_project.find(project), source)


def ids(project: Project) -> list[str]:
    """Return the ids of all state of the project."""
    with _meltano_state(project) as service:
        return sorted(service.list_state())


def _payload(service: StateService, name: str) -> dict[str, Any]:
    """Return the state with an id.

    Raises:
        TidemarkError: it is not Singer state.
    """
    try:
        payload: Any = service.get_state(name)
    except ValueError:
        payload = None
    bookmarks = payload.get("singer_state", {}) if isinstance(payload, dict) else None
    bookmarks = bookmarks.get("bookmarks", {}) if isinstance(bookmarks, dict) else None
    if not isinstance(bookmarks, dict) or not all(isinstance(entry, dict) for entry in bookmarks.values()):
        raise TidemarkError(
            f"Meltano's state {name} is not Singer state; look at it with `meltano state get {name}`, and set it with "
            "`meltano state set`, or clear it (the next run then reads everything again, and doubles nothing): "
            f"`meltano state clear {name}`."
        )
    return dict(payload)


@contextmanager
def _meltano_state(project: Project) -> Iterator[StateService]:
    """Open Meltano's own state service: `meltano state get` would take a second longer."""
    # imported late, because the import takes a second, and not every command needs it
    from meltano.core.state_service import StateService  # noqa: PLC0415

    meltano = meltano_project.find(project)
    with meltano_project.database(meltano) as session:
        yield StateService(meltano, session)


def export(project: Project) -> dict[str, Any]:
    """Return all state of this environment, in the form of `meltano state export`."""
    with _meltano_state(project) as service:
        return {name: state for name, state in service.export_state().items() if _is_ours(name, project)}


def replace(project: Project, states: Mapping[str, Any]) -> None:
    """Replace all state of this environment by what `export` returned. State of other environments stays."""
    with _meltano_state(project) as service:
        for each in [name for name in service.state_store_manager.get_state_ids() if _is_ours(name, project)]:
            if each not in states:
                service.clear_state(each)
        service.import_state(dict(states))


def _is_ours(name: str, project: Project) -> bool:
    return name.startswith(f"{variables.environment(project)}:")
