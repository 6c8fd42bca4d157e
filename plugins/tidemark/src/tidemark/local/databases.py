"""Makes the databases ready for connections."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar, cast

from tidemark.local import secrets_file
from tidemark.local.postgres import fleet
from tidemark.project import database_settings, meltano_project, resolved_settings
from tidemark.project.connections import connect

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from tidemark.project.database_settings import AirflowDatabase, DatabaseSettings, Source, Warehouse
    from tidemark.project.directory import Project
    from tidemark.project.sources import SourceDefinition

_Databases = TypeVar("_Databases", bound="tuple[DatabaseSettings, ...]")


def bring_up(project: Project, source: SourceDefinition | None = None) -> tuple[Source, Warehouse]:
    """Start the embedded servers, create missing passwords, and return the settings that then apply.

    Args:
        source: the source, by default the first one. The warehouse has the raw schema of this source.

    Raises:
        UsageError, TidemarkError: a server can't be started; see `Server.check` and `Server.start`.
    """

    def read(project: Project) -> tuple[Source, Warehouse]:
        if source is None:
            return database_settings.read(project)
        return database_settings.source(project, source), database_settings.warehouse(project, source)

    found, warehouse = _bring_up(project, read)
    return found, warehouse


def bring_up_all(project: Project, sources: Iterable[SourceDefinition]) -> tuple[list[Source], Warehouse]:
    """Start the embedded servers of these sources and of the warehouse, and return the settings that then apply.

    Raises:
        UsageError, TidemarkError: a server can't be started, or a source has no address.
    """
    *found, warehouse = _bring_up(project, lambda project: _sides(project, sources))
    # what _sides returns
    return cast("list[Source]", found), cast("Warehouse", warehouse)


def _sides(project: Project, sources: Iterable[SourceDefinition]) -> tuple[DatabaseSettings, ...]:
    return (*(database_settings.source(project, each) for each in sources), database_settings.warehouse(project))


def bring_up_warehouse(project: Project) -> Warehouse:
    """Start the warehouse's server if it is an embedded one, and return its settings.

    Raises:
        UsageError, TidemarkError: it can't be started.
    """
    (side,) = _bring_up(project, lambda project: (database_settings.warehouse(project),))
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


def try_own(project: Project, sources: Iterable[SourceDefinition], *, any_pool: bool = False) -> None:
    """Connect to the user's own databases among these sources and the warehouse, as a test.

    Args:
        any_pool: accept a pooler that keeps no sessions.

    Raises:
        UnreachableError: a database doesn't answer.
        UsageError: a pooler in between keeps no sessions, or a source has no address.
    """
    for side in _sides(project, sources):
        if not side.embedded:
            connect(side, any_pool=any_pool).close()
    if not any_pool:
        meltano_project.refuse_pool(resolved_settings.database_uri(project))
