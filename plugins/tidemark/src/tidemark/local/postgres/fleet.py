"""The embedded servers together: what a command does to the source's it does to the warehouse's."""

from __future__ import annotations

import shutil
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TYPE_CHECKING

from tidemark.local.postgres import binaries, home
from tidemark.local.postgres.server import Server
from tidemark.project.file_locks import hold

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from tidemark.project.directory import Project
    from tidemark.project.settings import DatabaseSettings


@contextmanager
def exclusive(project: Project) -> Iterator[None]:
    """Keep other commands' hands off the servers, and off the passwords they are made with."""
    with hold(project.state_dir / "postgres.lock", doing="starting or stopping the servers", wait=True):
        yield


def require_startable(project: Project, sides: Sequence[DatabaseSettings]) -> None:
    """Make sure that the embedded servers among `sides` run or can be started; changes nothing.

    Raises:
        UsageError: something stands in the way of one.
    """
    for side in sides:
        if side.embedded:
            Server(side, project).check()


def start(project: Project, sides: Sequence[DatabaseSettings]) -> None:
    """Start the servers of the embedded ones among `sides`, and make their databases. For use inside `alone`.

    Raises:
        UsageError: something stands in the way of one; none was started.
        TidemarkError: PostgreSQL could not start one.
    """
    servers = [Server(side, project) for side in sides if side.embedded]
    with ThreadPoolExecutor() as pool:
        # lists, as each step is to be done for all before the next is done for any
        stopped = [server for server in servers if server.check()]
        for server in stopped:
            server.prepare()
        list(pool.map(Server.start, stopped))
        for server in servers:
            server.make_database()
            server.make_roles()


def stop(project: Project, sides: Sequence[DatabaseSettings]) -> list[DatabaseSettings]:
    """Stop every server of ours that runs, also of a side that has a host of its own by now; return those stopped."""
    with exclusive(project):
        return [side for side in sides if Server(side, project).stop()]


def delete(project: Project, sides: Sequence[DatabaseSettings]) -> None:
    """Stop the embedded servers and delete their data, and the copy of their programs with the last of them."""
    with exclusive(project):
        for side in sides:
            server = Server(side, project)
            if side.embedded and server.exists():
                server.delete()
        if not any(Server(side, project).exists() for side in sides):
            for programs in home.find(project).glob(f"{binaries.COPY}*"):
                shutil.rmtree(programs)
