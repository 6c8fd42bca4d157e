"""Commands for the databases: embedded servers, connections, roles."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from tidemark.backup import clients
from tidemark.errors import UsageError
from tidemark.inspect import status as status_
from tidemark.local import airflow, databases
from tidemark.local.postgres import fleet
from tidemark.local.postgres.server import Server
from tidemark.project import connections, database_settings, sources
from tidemark.project.directory import Project
from tidemark.project.file_locks import hold

if TYPE_CHECKING:
    from tidemark.project.database_settings import DatabaseSettings


console = Console(highlight=False)


_WAREHOUSE = "warehouse"
SideArgument = Annotated[
    str,
    typer.Argument(
        metavar="source|warehouse|NAME", help="Which database: `source` is the first, NAME one of the others."
    ),
]


def up() -> None:
    """Start the embedded servers. A database whose HOST variable is set is left alone."""
    project = Project.find()
    databases.bring_up(project)
    status_.show_servers(console, project)


def down() -> None:
    """Stop the embedded servers. Their data stays."""
    project = Project.find()
    airflow.refuse_running(project)
    with hold(project.pipeline_lock, doing="running the pipeline"):
        stopped = fleet.stop(project, database_settings.all_databases(project))
    console.print(f"Stopped: {', '.join(side.side for side in stopped)}." if stopped else "No server was running.")


def dsn(side: SideArgument) -> None:
    """Print a database's libpq URL, including its password."""
    # not with rich, which would wrap it
    sys.stdout.write(connections.url(_side(side)) + "\n")


def roles(side: SideArgument) -> None:
    """Print the SQL that creates a database's roles, for a server of your own; `tidemark up` runs it on its servers."""
    from tidemark.roles import statements  # noqa: PLC0415

    sys.stdout.write(statements(_side(side).side))


def psql(side: SideArgument, context: typer.Context) -> None:
    """Open psql on a database. Further arguments go to psql, as in `tidemark psql warehouse -c "select 1"`."""
    chosen = _side(side)
    program = clients.psql(Project.find(), chosen)
    # not in the arguments, which all users of the machine can read
    password = {"PGPASSWORD": chosen.password.get_secret_value()} if chosen.password else {}
    # psql replaces this process, and gets its terminal and exit status
    os.execve(  # noqa: S606
        program, [program, connections.url(chosen, with_password=False), *context.args], {**os.environ, **password}
    )


def reset(
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,  # noqa: FBT002
) -> None:
    """Delete the embedded servers with all their data, and clear the state of what was loaded from or into them."""
    from tidemark.project import meltano_state as state  # noqa: PLC0415

    project = Project.find()
    airflow.refuse_running(project)
    # also those of databases that now have a host of the user's
    servers = [Server(side, project) for side in database_settings.all_databases(project)]
    doomed = [server for server in servers if server.exists()]
    if not doomed:
        console.print("There is no embedded server; nothing to delete.")
        return
    for server in doomed:
        console.print(f"Will delete the {server.side.side} server's data: {server.directory}", soft_wrap=True)
    for copy in fleet.programs(project, doomed):
        console.print(f"Will delete the copy of PostgreSQL's programs: {copy}", soft_wrap=True)
    ids = [each for each in state.ids(project) if _concerns(each, {server.side.side for server in doomed})]
    if ids:
        console.print(f"Will clear this state, so that the next run loads everything: {', '.join(ids)}", soft_wrap=True)
    if not yes and not _confirmed():
        console.print("Nothing was deleted.")
        return
    with hold(project.pipeline_lock, doing="running the pipeline"):
        # state first: state without data would skip rows, but data without state is only read again
        state.clear(project, ids)
        fleet.delete(project, doomed)
    console.print(f"Deleted. State cleared: {', '.join(ids) or 'there was none'}.", soft_wrap=True)


def _concerns(state_id: str, sides: set[str]) -> bool:
    """Return whether state is of a load from or into one of these servers: only the first source has one."""
    return "warehouse" in sides or ("source" in sides and f":{sources.TAP}-to-" in state_id)


def _side(name: str) -> DatabaseSettings:
    """Return the settings of a database, with its owner's login if it is an embedded one.

    Raises:
        UsageError: there is no such database.
    """
    project = Project.find()
    if name == _WAREHOUSE:
        return database_settings.admin(project, database_settings.warehouse(project))
    if name == "source":
        return database_settings.admin(project, database_settings.read(project)[0])
    found, _ = sources.read_with_faults(project)
    if name not in {each.name for each in found}:
        known = ", ".join(["source", _WAREHOUSE, *(each.name for each in found)])
        raise UsageError(f"There is no database {name!r}; the databases are {known}.")
    return database_settings.admin(project, database_settings.source(project, sources.find(project, name)))


def _confirmed() -> bool:
    if not sys.stdin.isatty():
        raise UsageError("There is no terminal to ask on; to delete anyway: `.venv/bin/tidemark reset --yes`.")
    return typer.confirm("Delete?")
