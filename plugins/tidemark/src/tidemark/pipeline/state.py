"""Meltano's state of the pipeline, and the guard against state and rows that belong to other databases."""

from __future__ import annotations

import json
import logging
import os
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from psycopg import errors

from tidemark.errors import TidemarkError

if TYPE_CHECKING:
    from collections.abc import Iterator

    import psycopg
    from meltano.core.state_service import StateService

    from tidemark.project import Project
    from tidemark.settings import Side

TAP, TARGET = "tap-postgres", "target-postgres"


@dataclass(frozen=True)
class Bookmark:
    """How far a stream has been read: the replication key and the largest value seen."""

    key: str
    value: Any


def environment(project: Project) -> str:
    """Return the name of the Meltano environment that a run would use."""
    import yaml  # noqa: PLC0415  (not every command needs it)

    named = os.environ.get("MELTANO_ENVIRONMENT")
    return named or yaml.safe_load((project.root / "meltano.yml").read_text())["default_environment"]


def state_id(project: Project) -> str:
    """Return the id under which Meltano keeps the pipeline's state."""
    suffix = os.environ.get("MELTANO_RUN_STATE_ID_SUFFIX")
    return f"{environment(project)}:{TAP}-to-{TARGET}{f':{suffix}' if suffix else ''}"


def clear_command(project: Project) -> str:
    """Return the command that forgets the state, so that the next run loads everything."""
    return f"`.venv/bin/meltano state clear --force {state_id(project)}`"


def bookmarks(project: Project) -> dict[str, Bookmark]:
    """Return each stream's bookmark as Meltano holds it; streams without a replication key have none."""
    with _meltano_state(project) as service:
        streams = service.get_state(state_id(project)).get("singer_state", {}).get("bookmarks", {})
    return {
        stream: Bookmark(entry["replication_key"], entry["replication_key_value"])
        for stream, entry in streams.items()
        if entry.get("replication_key_value") is not None
    }


@contextmanager
def _meltano_state(project: Project) -> Iterator[StateService]:
    """Open Meltano's own state service: `meltano state get` would cost a second more."""
    # imported late, as not every command can spare that second either
    import sqlalchemy.exc  # noqa: PLC0415
    import structlog  # noqa: PLC0415
    from meltano.core.db import project_engine  # noqa: PLC0415
    from meltano.core.migration_service import MigrationService  # noqa: PLC0415
    from meltano.core.project import Project as MeltanoProject  # noqa: PLC0415
    from meltano.core.state_service import StateService  # noqa: PLC0415

    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    meltano = MeltanoProject.find(project.root)
    meltano.activate_environment(environment(project))
    try:
        engine, make_session = project_engine(meltano)
        MigrationService(engine).upgrade(silent=True)
        with closing(make_session()) as session:
            yield StateService(meltano, session)
    except (sqlalchemy.exc.SQLAlchemyError, ImportError) as error:
        raise TidemarkError(
            f"Meltano's own database can't be used: {' '.join(str(error).split())}; check MELTANO_DATABASE_URI."
        ) from error


def identity(side: Side, connection: psycopg.Connection[Any]) -> str:
    """Return what tells this database from any other: stays when its server's name or port changes."""
    row = connection.execute("select oid::text from pg_database where datname = current_database()").fetchone()
    assert row
    try:
        with connection.transaction():
            server = connection.execute("select system_identifier::text from pg_control_system()").fetchone()
            assert server
            return f"{server[0]}/{row[0]}"
    except errors.InsufficientPrivilege:
        return f"{side.address}:{side.port}/{row[0]}"


def guard(project: Project, identities: dict[str, str], *, has_state: bool, has_rows: bool) -> None:
    """Refuse a run whose state or raw tables were made with other databases, and remember these.

    State of another database would skip rows; rows of another source would mix with those in raw.

    Args:
        identities: of "source" and "warehouse".
        has_state: whether Meltano holds a bookmark for this pipeline.
        has_rows: whether the warehouse holds raw tables.

    Raises:
        TidemarkError: the source or the warehouse is not the one of the last run.
    """
    path = project.state_dir / "databases.json"
    known = json.loads(path.read_text()) if path.exists() else {}
    last = known.get(state_id(project), identities)
    if has_state and last["warehouse"] != identities["warehouse"]:
        raise TidemarkError(
            "The warehouse is not the database that the last run loaded, and its state would skip rows; "
            f"load everything into this one: {clear_command(project)}, then run this again."
        )
    if (has_state or has_rows) and last["source"] != identities["source"]:
        raise TidemarkError(
            "The source is not the database that the warehouse was loaded from, and their rows would mix; give this "
            "source a new warehouse (TARGET_POSTGRES_DATABASE, or drop schema raw in this one), "
            f"forget the state: {clear_command(project)}, then run this again. `tidemark reset` does both for the demo."
        )
    known[state_id(project)] = identities
    scratch = path.with_suffix(".new")
    scratch.write_text(json.dumps(known, indent=2))
    scratch.replace(path)


def clear_all(project: Project) -> list[str]:
    """Forget the state of every pipeline of the project, so that each loads everything next; return their ids."""
    with _meltano_state(project) as service:
        ids = sorted(service.list_state())
        for each in ids:
            service.clear_state(each)
    return ids
