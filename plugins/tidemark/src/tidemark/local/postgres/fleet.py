"""Starts, stops and deletes all embedded servers together."""

from __future__ import annotations

import shutil
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TYPE_CHECKING, get_args

from tidemark.local.postgres import binaries, home
from tidemark.local.postgres.server import Server
from tidemark.project.database_settings import ServerName
from tidemark.project.file_locks import hold

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from tidemark.project.database_settings import DatabaseSettings
    from tidemark.project.directory import Project


@contextmanager
def exclusive(project: Project) -> Iterator[None]:
    """Keep other commands away from the servers and from their passwords."""
    with hold(project.state_dir / "postgres.lock", doing="starting or stopping the servers", wait=True):
        yield


def require_startable(project: Project, sides: Sequence[DatabaseSettings]) -> None:
    """Check that the embedded servers among `sides` run or can be started. This changes nothing.

    Raises:
        UsageError: a server can't be started.
    """
    for side in sides:
        if side.embedded:
            Server(side, project).check()


def start(project: Project, sides: Sequence[DatabaseSettings]) -> None:
    """Start the embedded servers among `sides`, and create their databases and roles. Call this inside `exclusive`.

    Raises:
        UsageError: a server can't be started; none was.
        TidemarkError: PostgreSQL could not start a server.
    """
    servers = [Server(side, project) for side in sides if side.embedded]
    with ThreadPoolExecutor() as pool:
        # lists, so that each step is done for all servers before the next step begins
        stopped = [server for server in servers if server.check()]
        for server in stopped:
            server.prepare()
        list(pool.map(Server.start, stopped))
        for server in servers:
            server.make_database()
            server.make_roles()


def stop(project: Project, sides: Sequence[DatabaseSettings]) -> list[DatabaseSettings]:
    """Stop all our running servers, even if their database now has a host of the user's. Return the stopped ones."""
    with exclusive(project):
        return [side for side in sides if Server(side, project).stop()]


def programs(project: Project, servers: Sequence[Server]) -> list[Path]:
    """Return the copies of PostgreSQL's programs that no server needs once these are deleted."""
    directory, doomed = home.find(project), {server.side.side for server in servers}
    if any((directory / side).exists() for side in get_args(ServerName) if side not in doomed):
        return []
    return sorted(directory.glob(f"{binaries.COPY}*"))


def delete(project: Project, servers: Sequence[Server]) -> None:
    """Stop servers and delete their data. With the last one, delete the copies of the programs too."""
    with exclusive(project):
        copies = programs(project, servers)
        for server in servers:
            if server.exists():
                server.delete()
        for copy in copies:
            shutil.rmtree(copy)
