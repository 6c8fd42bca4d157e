"""Meltano's state of the pipeline."""

from __future__ import annotations

import json
import os
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

from tidemark.errors import TidemarkError
from tidemark.project import meltano_project, variables

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from meltano.core.project import Project as MeltanoProject
    from meltano.core.state_service import StateService

    from tidemark.project.directory import Project

TAP, TARGET = "tap-postgres", "target-postgres"


@dataclass(frozen=True)
class Bookmark:
    """How far a stream has been read: the replication key, and the value up to which all rows are in the warehouse."""

    key: str
    value: Any


def shown(value: Any) -> str:
    """Return the value of a bookmark to the second if it is an instant, and as it is if not."""
    try:
        return datetime.fromisoformat(value).strftime("%Y-%m-%d %H:%M:%S")
    except (TypeError, ValueError):
        return str(value)


def state_id(meltano: MeltanoProject) -> str:
    """Return the id under which Meltano keeps the pipeline's state."""
    # which expands what the environment has for a suffix
    meltano_project.plugin(meltano, TAP)
    assert meltano.environment
    # Meltano looks for this variable in the process alone, and not in .env
    suffix = os.environ.get("MELTANO_RUN_STATE_ID_SUFFIX") or meltano.environment.state_id_suffix
    return f"{meltano.environment.name}:{TAP}-to-{TARGET}{f':{suffix}' if suffix else ''}"


def bookmarks(project: Project) -> dict[str, Bookmark]:
    """Return each stream's bookmark as Meltano holds it; streams without a replication key have none."""
    return {
        stream: Bookmark(entry["replication_key"], entry["replication_key_value"])
        for stream, entry in entries(project).items()
        if entry.get("replication_key_value") is not None
    }


def entries(project: Project) -> dict[str, dict[str, Any]]:
    """Return all that the tap has written of each stream into Meltano's state."""
    with _meltano_state(project) as service:
        found: dict[str, dict[str, Any]] = _payload(service).get("singer_state", {}).get("bookmarks", {})
    return found


def put(project: Project, entries: Mapping[str, Mapping[str, Any] | None]) -> None:
    """Write what the tap is to find of some streams; None to have it find nothing."""
    with _meltano_state(project) as service:
        payload = _payload(service)
        bookmarks = payload.setdefault("singer_state", {}).setdefault("bookmarks", {})
        for stream, entry in entries.items():
            bookmarks.pop(stream, None)
            if entry is not None:
                bookmarks[stream] = entry
        service.set_state(state_id(service.project), json.dumps(payload))


def _payload(service: StateService) -> dict[str, Any]:
    """Return Meltano's state.

    Raises:
        TidemarkError: it is none.
    """
    name = state_id(service.project)
    try:
        payload: Any = service.get_state(name)
    except ValueError:
        payload = None
    bookmarks = payload.get("singer_state", {}) if isinstance(payload, dict) else None
    bookmarks = bookmarks.get("bookmarks", {}) if isinstance(bookmarks, dict) else None
    if not isinstance(bookmarks, dict) or not all(isinstance(entry, dict) for entry in bookmarks.values()):
        raise TidemarkError(
            f"Meltano's state {name} is not Singer state; look at it with `meltano state get {name}`, and set it with "
            "`meltano state set`, or clear it (all is then read anew, and nothing doubled): "
            f"`meltano state clear {name}`."
        )
    return dict(payload)


@contextmanager
def _meltano_state(project: Project) -> Iterator[StateService]:
    """Open Meltano's own state service: `meltano state get` would cost a second more."""
    # imported late, as not every command can spare that second either
    from meltano.core.state_service import StateService  # noqa: PLC0415

    meltano = meltano_project.find(project)
    with meltano_project.database(meltano) as session:
        yield StateService(meltano, session)


def clear_all(project: Project) -> list[str]:
    """Forget the state of every pipeline of the project, so that each loads everything next; return their ids."""
    with _meltano_state(project) as service:
        ids = sorted(service.list_state())
        for each in ids:
            service.clear_state(each)
    return ids


def export(project: Project) -> dict[str, Any]:
    """Return all state of this environment as Meltano keeps it, in the form of `meltano state export`."""
    with _meltano_state(project) as service:
        return {name: state for name, state in service.export_state().items() if _is_ours(name, project)}


def replace(project: Project, states: Mapping[str, Any]) -> None:
    """Make all state of this environment what `export` returned; that of others, which may be beside it, stays."""
    with _meltano_state(project) as service:
        for each in [name for name in service.state_store_manager.get_state_ids() if _is_ours(name, project)]:
            if each not in states:
                service.clear_state(each)
        service.import_state(dict(states))


def _is_ours(name: str, project: Project) -> bool:
    return name.startswith(f"{variables.environment(project)}:")
