"""Dumps one database into a directory, and counts its rows under the same snapshot."""

from __future__ import annotations

from typing import TYPE_CHECKING

from singer_postgres.core import poolers
from tidemark.backup import clients, contents
from tidemark.backup.clients import COMPRESSIONS
from tidemark.backup.programs import KEEPALIVES, MovedError, Program
from tidemark.project import connections, lock_watch

if TYPE_CHECKING:
    from pathlib import Path

    from tidemark.backup.manifest import Database
    from tidemark.project.database_settings import DatabaseSettings
    from tidemark.project.directory import Project


def dump(project: Project, side: DatabaseSettings, directory: Path, *, jobs: int, lock: int) -> Database:
    """Dump the database `side` into `directory`, which pg_dump creates.

    Raises:
        UsageError: no pg_dump is new enough, or the role may not read everything.
        MovedError: tables changed during the dump, or another session waited to change one.
        TidemarkError: pg_dump failed.
    """
    with connections.connect(side) as connection:
        major = connection.info.server_version // 10_000
    programs = clients.find(project, side, at_least=major)
    compression = programs.compression()
    with contents.frozen(side) as (frozen, snapshot):
        command = [
            *(programs["pg_dump"], "--format=directory", f"--file={directory}", f"--jobs={jobs}", "--no-password"),
            f"--dbname={KEEPALIVES}",
            *(f"--snapshot={snapshot}", f"--compress={COMPRESSIONS[compression]}"),
            # the tables are locked already, so pg_dump only waits if another session waits for one; that goes first
            *("--lock-wait-timeout=1s", "--exclude-table=*._tidemark_stage_*"),
        ]
        pid = poolers.server_pid(frozen.connection)
        with Program(command, side, lock, full=directory.parent) as program:
            try:
                # loads and models ask for a lock for half a second at a time, so they keep nobody waiting
                with lock_watch.giving_way(side, pid, polite=False, let_go=program.stop):
                    found = frozen.database(client=programs.major, compression=compression)
                    program.wait()
            except lock_watch.SessionEndedError as error:
                raise MovedError(
                    f"The dump of the {side} stopped for another session that waited for a table: {error}."
                ) from error
    return found
