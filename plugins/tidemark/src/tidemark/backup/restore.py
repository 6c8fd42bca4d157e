"""Restores a backup: the warehouse into a new database, which then takes the old one's name, and Meltano's state."""

from __future__ import annotations

import json
import tempfile
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from tidemark.backup import contents, database
from tidemark.backup import settings as backup_settings
from tidemark.backup.make import airflow_database, exclusive
from tidemark.backup.manifest import AIRFLOW, STATE, WAREHOUSE
from tidemark.errors import BackupError, TidemarkError, UsageError
from tidemark.local import airflow, databases
from tidemark.project import meltano_state, variables
from tidemark.project.file_locks import hold

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tidemark.backup.make import Say
    from tidemark.backup.manifest import Database, Manifest
    from tidemark.backup.store import BackupStore
    from tidemark.project.database_settings import DatabaseSettings
    from tidemark.project.directory import Project

_LONGEST_NAME = 63
# `tidemark roles` and `tidemark up` create this in a new warehouse; it holds no user's data
_OF_ROLES = {("tidemark", "views_set_aside")}


@dataclass(frozen=True)
class RestoreOptions:
    """What to restore, and whether existing databases may be renamed."""

    replace: bool
    airflow: bool
    jobs: int


@dataclass(frozen=True)
class _Target:
    """A database to restore into.

    Attributes:
        was: the dumped database.
        directory: the backup's directory that has the dump.
        aside: the new name of the existing database; None if that is empty.
    """

    side: DatabaseSettings
    was: Database
    directory: str
    aside: str | None


def restore(  # noqa: PLR0913 - each argument has a name
    project: Project,
    store: BackupStore,
    name: str,
    options: RestoreOptions,
    *,
    say: Say,
    confirmed: Callable[[list[str]], bool],
) -> bool:
    """Restore a backup into the configured databases, and return whether that was done.

    Args:
        confirmed: called with the plan before a database is renamed; False cancels.

    Raises:
        BusyError: a run, a backup or a restore is active.
        UsageError: there is no such backup, or a database is not empty and may not be replaced.
        TidemarkError: a file was changed, or the restore failed; the databases are unchanged.
    """
    manifest = store.manifest(store.find(name))
    if manifest.environment != variables.environment(project):
        raise UsageError(
            f"Backup {manifest.name} belongs to Meltano's environment {manifest.environment}, but the current one is "
            f"{variables.environment(project)}; set MELTANO_ENVIRONMENT to restore it."
        )
    with ExitStack() as servers:
        targets = _targets(project, manifest, options, servers)
        plan = [f"Will rename the {target.side} to {target.aside}." for target in targets if target.aside]
        if plan and not confirmed(plan):
            return False
        with (
            hold(project.pipeline_lock, doing="restoring a backup"),
            exclusive(project) as lock,
            fetched(store, manifest) as directory,
        ):
            for target in targets:
                _put_back(project, target, directory, options, lock, say)
            _put_state_back(project, directory, say)
    return True


@contextmanager
def fetched(store: BackupStore, manifest: Manifest) -> Iterator[Path]:
    """Yield the directory of a backup's files, after a check that none was changed.

    Raises:
        TidemarkError: a file was changed.
    """
    if store.directory:
        yield store.verify(manifest) or store.directory
        return
    with tempfile.TemporaryDirectory(prefix="tidemark-restore-") as name:
        yield store.verify(manifest, Path(name)) or Path(name)


def _targets(project: Project, manifest: Manifest, options: RestoreOptions, servers: ExitStack) -> list[_Target]:
    """Return the databases to replace, after a check that all of them may be replaced."""
    _, warehouse = databases.bring_up(project)
    wanted = [(backup_settings.login(project, warehouse), manifest.warehouse, WAREHOUSE)]
    if options.airflow:
        if manifest.airflow is None:
            raise UsageError(f"Backup {manifest.name} contains no Airflow database; omit --airflow.")
        airflow.refuse_running(project)
        metadata = servers.enter_context(airflow_database(project, new=True))
        assert metadata
        wanted.append((metadata, manifest.airflow, AIRFLOW))
    targets = []
    for side, was, directory in wanted:
        with contents.read(side) as there:
            tables = [table for table in there.tables() if table not in _OF_ROLES]
            if there.major < was.server:
                raise UsageError(
                    f"Backup {manifest.name} comes from PostgreSQL {was.server}, but the {side} is {there.major}; "
                    "restore it into a server that is not older."
                )
        if tables and not options.replace:
            schemas = ", ".join(sorted({schema for schema, _ in tables}))
            raise UsageError(
                f"The {side} holds {len(tables)} tables (in {schemas}), which would be lost; restore into an empty "
                "database (TARGET_POSTGRES_DATABASE), or use --replace, which keeps this one under another name."
            )
        database.refuse_missing_roles(side, was)
        stamp = datetime.now(UTC).strftime("_before_%Y%m%d_%H%M%S")
        aside = f"{side.database[: _LONGEST_NAME - len(stamp)]}{stamp}" if tables else None
        targets.append(_Target(side, was, directory, aside))
    return targets


def _put_back(  # noqa: PLR0913, PLR0917 - everything that it needs
    project: Project, target: _Target, directory: Path, options: RestoreOptions, lock: int, say: Say
) -> None:
    side = target.side
    database.refuse_runs(side)
    with database.restored(
        project, side, target.was, directory / target.directory, jobs=options.jobs, lock=lock
    ) as new:
        # a run may have begun meanwhile
        database.refuse_runs(side)
        database.swap(side, new, aside=target.aside)
    say(f"Restored the {side}: {target.was.rows:,} rows of {len(target.was.tables)} tables, all equal to the dump.")
    if target.aside:
        say(f"The old database is now {target.aside}. Once you no longer need it: {_drop_command(side, target.aside)}")


def _drop_command(side: DatabaseSettings, name: str) -> str:
    if side.side == "warehouse" and side.embedded:
        return f".venv/bin/tidemark psql warehouse -c 'drop database {name}'"
    return f'DROP DATABASE "{name}";'


def _put_state_back(project: Project, directory: Path, say: Say) -> None:
    """Restore Meltano's state last. Until then it is ahead of the warehouse, and a run would refuse to start."""
    states = json.loads((directory / STATE).read_text())
    try:
        meltano_state.replace(project, states)
    except TidemarkError as error:
        raise BackupError(
            f"The warehouse is restored, but Meltano's state is not: {error} Then set it to what the warehouse holds: "
            "`tidemark state rewind`."
        ) from error
    say(f"Restored Meltano's state of {', '.join(states) or 'nothing'}.")
