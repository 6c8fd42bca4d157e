"""Meltano's bookmarks, read from Meltano's own database.

Meltano's own code would take a second and a hundred megabytes.
"""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from datetime import datetime
from typing import TYPE_CHECKING, Any

import psycopg

from tidemark.errors import UsageError
from tidemark.metrics import catalogue
from tidemark.project import meltano_database, resolved_settings, variables, yaml_files

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tidemark.metrics.samples import Samples
    from tidemark.metrics.schedules import Schedules
    from tidemark.project.directory import Project

_QUERY = "select state_id, completed_state, partial_state from state"
_TIMEOUT_S = 3


def tell(project: Project, schedules: Schedules, held: Mapping[tuple[str, str], str | None], samples: Samples) -> None:
    """Add how far Meltano's bookmarks are from those of the warehouse.

    Args:
        held: the warehouse's bookmarks, by source and stream.

    Raises:
        UsageError: Meltano keeps its state elsewhere than in its database.
        psycopg.Error, sqlite3.Error: its database can't be read.
    """
    for name, bookmarks in _states(project).items():
        tap, _, target = name.partition("-to-")
        source = schedules.schema(tap, target.partition(":")[0])
        for stream, bookmark in bookmarks.items():
            ours, theirs = _instant(held.get((source or "", stream))), _instant(bookmark)
            if source and ours is not None and theirs is not None:
                samples.add(catalogue.STREAM_STATE, ours - theirs, source, stream)


def _states(project: Project) -> dict[str, dict[str, Any]]:
    """Return the bookmarks of each pipeline of this environment, by `tap-to-target`."""
    backend = variables.read(project).get("MELTANO_STATE_BACKEND_URI") or yaml_files.read(project).setting(
        "state_backend.uri"
    )
    if backend and backend != "systemdb":
        # the address may hold a key
        kind = backend.partition(":")[0]
        raise UsageError(f"Meltano keeps its state in {kind}, which `tidemark metrics` does not read.")
    prefix = f"{variables.environment(project)}:"
    found: dict[str, dict[str, Any]] = {}
    for state_id, completed, partial in _rows(project):
        if state_id.startswith(prefix):
            bookmarks: dict[str, Any] = {}
            for state in (completed, partial):
                bookmarks |= _bookmarks(state)
            found[state_id.removeprefix(prefix)] = bookmarks
    return found


def _bookmarks(state: str | None) -> dict[str, Any]:
    """Return the replication keys in a state. Other taps may write what they like there."""
    found: Any = json.loads(state or "{}")
    for name in ("singer_state", "bookmarks"):
        found = found.get(name) if isinstance(found, dict) else None
    entries = found.items() if isinstance(found, dict) else ()
    return {stream: entry.get("replication_key_value") for stream, entry in entries if isinstance(entry, dict)}


def _rows(project: Project) -> list[tuple[str, str | None, str | None]]:
    uri = resolved_settings.database_uri(project)
    kind, _, rest = uri.partition("://")
    if kind.partition("+")[0] in {"postgresql", "postgres"}:
        with psycopg.connect(f"postgresql://{rest}", connect_timeout=_TIMEOUT_S) as connection:
            # Meltano creates its tables at its first run
            if connection.execute("select to_regclass('state')").fetchone() == (None,):
                return []
            return connection.execute(_QUERY).fetchall()
    path = meltano_database.file_of(project, uri)
    if path is None or not path.is_file():
        return []
    with closing(sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True, timeout=_TIMEOUT_S)) as database:
        return database.execute(_QUERY).fetchall()


def _instant(bookmark: object) -> float | None:
    if not isinstance(bookmark, str) or bookmark.isdigit():
        return None
    try:
        return datetime.fromisoformat(bookmark).timestamp()
    except ValueError:
        return None
