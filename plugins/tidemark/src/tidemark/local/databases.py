"""Both databases, ready to be connected to."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from tidemark.local import secrets_file
from tidemark.local.postgres import fleet
from tidemark.project import meltano_project, plugin_settings, settings
from tidemark.project.connections import connect

if TYPE_CHECKING:
    from collections.abc import Callable

    from tidemark.project.directory import Project
    from tidemark.project.settings import AirflowDatabase, DatabaseSettings, Source, Warehouse

_Databases = TypeVar("_Databases", bound="tuple[DatabaseSettings, ...]")


def bring_up(project: Project) -> tuple[Source, Warehouse]:
    """Start the embedded servers, with passwords made if there are none; return the settings that then hold.

    Raises:
        UsageError, TidemarkError: a server can't be started; see `Server.check` and `Server.start`.
    """
    source, warehouse = _bring_up(project, settings.read)
    return source, warehouse


def bring_up_warehouse(project: Project) -> Warehouse:
    """Start the embedded server of the warehouse unless that is the user's own; return its settings.

    Raises:
        UsageError, TidemarkError: it can't be started.
    """
    (side,) = _bring_up(project, lambda project: settings.read(project)[1:])
    return side


def bring_up_airflow(project: Project) -> AirflowDatabase:
    """Start the embedded server of Airflow's metadata unless that is the user's own; return its settings.

    Raises:
        UsageError, TidemarkError: it can't be started.
    """
    (side,) = _bring_up(project, lambda project: (settings.airflow_database(project),))
    return side


def _bring_up(project: Project, read: Callable[[Project], _Databases]) -> _Databases:
    with fleet.exclusive(project):
        sides = read(project)
        # all refusals come before anything is made
        fleet.require_startable(project, sides)
        if secrets_file.ensure_passwords(project, sides):
            sides = read(project)
        fleet.start(project, sides)
    return sides


def try_own(project: Project, *, any_pool: bool = False) -> None:
    """Connect to the databases that are the user's.

    Args:
        any_pool: also where a pooler in between keeps no sessions.

    Raises:
        UnreachableError: one does not answer.
        UsageError: a pooler is in between that keeps no sessions.
    """
    for side in settings.read(project):
        if not side.embedded:
            connect(side, any_pool=any_pool).close()
    if not any_pool:
        meltano_project.refuse_pool(plugin_settings.database_uri(project))
