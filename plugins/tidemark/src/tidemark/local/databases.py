"""Makes the databases ready for connections."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from tidemark.local import secrets_file
from tidemark.local.postgres import fleet
from tidemark.project import database_settings, meltano_project, resolved_settings
from tidemark.project.connections import connect

if TYPE_CHECKING:
    from collections.abc import Callable

    from tidemark.project.database_settings import AirflowDatabase, DatabaseSettings, Source, Warehouse
    from tidemark.project.directory import Project

_Databases = TypeVar("_Databases", bound="tuple[DatabaseSettings, ...]")


def bring_up(project: Project) -> tuple[Source, Warehouse]:
    """Start the embedded servers, create missing passwords, and return the settings that then apply.

    Raises:
        UsageError, TidemarkError: a server can't be started; see `Server.check` and `Server.start`.
    """
    source, warehouse = _bring_up(project, database_settings.read)
    return source, warehouse


def bring_up_warehouse(project: Project) -> Warehouse:
    """Start the warehouse's server if it is an embedded one, and return its settings.

    Raises:
        UsageError, TidemarkError: it can't be started.
    """
    (side,) = _bring_up(project, lambda project: database_settings.read(project)[1:])
    return side


def bring_up_airflow(project: Project) -> AirflowDatabase:
    """Start the server of Airflow's metadata if it is an embedded one, and return its settings.

    Raises:
        UsageError, TidemarkError: it can't be started.
    """
    (side,) = _bring_up(project, lambda project: (database_settings.airflow_database(project),))
    return side


def _bring_up(project: Project, read: Callable[[Project], _Databases]) -> _Databases:
    with fleet.exclusive(project):
        sides = read(project)
        # check everything before anything is created
        fleet.require_startable(project, sides)
        if secrets_file.ensure_passwords(project, sides):
            sides = read(project)
        fleet.start(project, sides)
    return sides


def try_own(project: Project, *, any_pool: bool = False) -> None:
    """Connect to the user's own databases, as a test.

    Args:
        any_pool: accept a pooler that keeps no sessions.

    Raises:
        UnreachableError: a database doesn't answer.
        UsageError: a pooler in between keeps no sessions.
    """
    for side in database_settings.read(project):
        if not side.embedded:
            connect(side, any_pool=any_pool).close()
    if not any_pool:
        meltano_project.refuse_pool(resolved_settings.database_uri(project))
