"""Meltano's state of the pipeline."""

from __future__ import annotations

import logging
import os
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tidemark.errors import TidemarkError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from meltano.core.state_service import StateService

    from tidemark.project import Project

TAP, TARGET = "tap-postgres", "target-postgres"


@dataclass(frozen=True)
class Bookmark:
    """How far a stream has been read: the replication key, and the value up to which all rows are in the warehouse."""

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


def clear_all(project: Project) -> list[str]:
    """Forget the state of every pipeline of the project, so that each loads everything next; return their ids."""
    with _meltano_state(project) as service:
        ids = sorted(service.list_state())
        for each in ids:
            service.clear_state(each)
    return ids
