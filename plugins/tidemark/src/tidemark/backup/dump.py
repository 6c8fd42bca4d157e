"""Dumps one database into a directory, and counts what is in it under the same snapshot."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tidemark import connections
from tidemark.backup import clients, contents
from tidemark.backup.clients import COMPRESSIONS
from tidemark.backup.programs import Program

if TYPE_CHECKING:
    from pathlib import Path

    from tidemark.backup.manifest import Database
    from tidemark.project import Project
    from tidemark.settings import Side


def dump(project: Project, side: Side, directory: Path, *, jobs: int, lock: int) -> Database:
    """Dump the database of `side` into `directory`, which is made.

    Raises:
        UsageError: no pg_dump is new enough, or the role may not read all.
        MovedError: tables changed meanwhile.
        TidemarkError: pg_dump failed.
    """
    with connections.connect(side) as connection:
        major = connection.info.server_version // 10_000
    programs = clients.find(project, side, at_least=major)
    compression = programs.compression()
    with contents.frozen(side) as (frozen, snapshot):
        command = [
            *(programs["pg_dump"], "--format=directory", f"--file={directory}", f"--jobs={jobs}", "--no-password"),
            *(f"--snapshot={snapshot}", f"--compress={COMPRESSIONS[compression]}", "--lock-wait-timeout=60s"),
        ]
        with Program(command, side, lock, full=directory.parent) as program:
            found = frozen.database(client=programs.major, compression=compression)
            program.wait()
    return found
