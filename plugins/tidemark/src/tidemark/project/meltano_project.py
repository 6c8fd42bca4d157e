"""Meltano itself, imported into this process: its project in a run's environment, and its view of settings.

Importing Meltano takes a second, and not every command needs it. So all its imports are late.
"""

from __future__ import annotations

import glob
import json
import logging
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from singer_postgres.core.errors import one_line
from tidemark.errors import TidemarkError, UsageError
from tidemark.project import meltano_database, variables

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    import psycopg
    from meltano.core.plugin.project_plugin import ProjectPlugin
    from meltano.core.plugin.settings_service import PluginSettingsService
    from meltano.core.project import Project as MeltanoProject
    from sqlalchemy.orm import Session

    from tidemark.project.directory import Project

_URI = "MELTANO_DATABASE_URI"
_TIMEOUT_S = 10


def find(project: Project) -> MeltanoProject:
    """Return Meltano's project in the environment of `variables.environment`.

    Raises:
        UsageError: its files can't be read, or don't have that environment.
    """
    import structlog  # noqa: PLC0415
    from meltano.core.error import MeltanoError  # noqa: PLC0415
    from meltano.core.project import Project as MeltanoProject  # noqa: PLC0415

    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    name = variables.environment(project)
    try:
        # a project that was found before may be another one, or have read an earlier .env
        MeltanoProject.deactivate()
        meltano = MeltanoProject.find(project.root)
        if name not in {each.name for each in meltano.meltano.environments}:
            raise UsageError(
                f"The Meltano environment is {name!r}, which meltano.yml does not have; correct MELTANO_ENVIRONMENT in "
                "the environment or .env, or add it there."
            )
        meltano.activate_environment(name)
    except (MeltanoError, ValueError) as error:
        raise unreadable(error) from error
    return meltano


def unreadable(error: Exception) -> UsageError:
    """Return our error for an error of Meltano."""
    return UsageError(
        f"Meltano can't read its configuration: {one_line(error).rstrip('.')}; see meltano.yml and the "
        "files that it includes, .env, and the variables that begin with MELTANO_, TAP_ and TARGET_."
    )


@contextmanager
def database(meltano: MeltanoProject) -> Iterator[Session]:
    """Open Meltano's own database.

    Raises:
        UsageError: a pooler in between keeps no sessions.
        TidemarkError: the database can't be used.
    """
    import sqlalchemy.exc  # noqa: PLC0415
    from meltano.core.db import project_engine  # noqa: PLC0415
    from meltano.core.migration_service import MigrationError, MigrationService  # noqa: PLC0415

    refuse_pool(meltano.settings.get("database_uri"))
    try:
        engine, make_session = project_engine(meltano)
        if engine.url.drivername == "sqlite" and engine.url.database:
            meltano_database.make(Path(engine.url.database))
        MigrationService(engine).upgrade(silent=True)
        with closing(make_session()) as session:
            yield session
    except (sqlalchemy.exc.SQLAlchemyError, MigrationError, ImportError) as error:
        raise TidemarkError(f"Meltano's own database can't be used: {one_line(error)}; check {_URI}.") from error


def refuse_pool(uri: str) -> None:
    """Raise if a pooler before Meltano's database keeps no sessions: its driver prepares frequent statements.

    Raises:
        UsageError: the pooler keeps no sessions.
    """
    import psycopg  # noqa: PLC0415

    from singer_postgres.core import poolers  # noqa: PLC0415
    from singer_postgres.core.errors import PoolerError  # noqa: PLC0415

    kind, _, rest = uri.partition("://")
    if kind.partition("+")[0] != "postgresql":
        return

    def another() -> psycopg.Connection[Any]:
        return psycopg.connect(f"postgresql://{rest}", autocommit=True, connect_timeout=_TIMEOUT_S)

    # if the database can't be reached, Meltano reports that
    with suppress(psycopg.Error), another() as connection:
        try:
            poolers.require_session(connection, another, variables=_URI)
        except PoolerError as error:
            raise UsageError(str(error)) from error


def only(prefix: str, streams: Iterable[str]) -> dict[str, str]:
    """Return the variable that limits a tap to some of its streams. It does not change the selection of columns.

    Args:
        prefix: what the tap's variables begin with.
    """
    return {f"{prefix}__SELECT_FILTER": json.dumps([escaped(glob.escape(stream)) for stream in streams])}


def escaped(stream: str) -> str:
    """Return a name in Meltano's notation: Meltano treats an unescaped dot as the end of the name."""
    return stream.replace(".", r"\.")


def kind(name: str) -> str:
    """Return Meltano's word for what a plugin is, by the name of a tap, a target or a utility."""
    return {"tap": "extractors", "target": "loaders"}.get(name.partition("-")[0], "utilities")


def plugin(meltano: MeltanoProject, name: str) -> tuple[ProjectPlugin, PluginSettingsService]:
    """Return a plugin (tap, target or dbt), and Meltano's service for its settings.

    Raises:
        UsageError: there is no such plugin.
    """
    from meltano.core.error import MeltanoError  # noqa: PLC0415
    from meltano.core.plugin import PluginType  # noqa: PLC0415
    from meltano.core.plugin.settings_service import PluginSettingsService  # noqa: PLC0415

    try:
        found = meltano.plugins.find_plugin(name, plugin_type=PluginType(kind(name)))
        return found, PluginSettingsService(meltano, found)
    except (MeltanoError, ValueError) as error:
        raise unreadable(error) from error
