"""Makes a backup: first Meltano's state, then the data that this state describes."""

from __future__ import annotations

import json
import secrets
import shutil
import time
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Protocol

from tidemark.backup import retention
from tidemark.backup import settings as backup_settings
from tidemark.backup.dump import dump
from tidemark.backup.manifest import AIRFLOW, FILE, STATE, WAREHOUSE, Manifest, new_name
from tidemark.backup.programs import MovedError
from tidemark.backup.store import file
from tidemark.errors import BackupError, TidemarkError
from tidemark.local import airflow, databases
from tidemark.local.postgres import fleet
from tidemark.local.postgres.server import Server
from tidemark.project import connections, database_settings, lock_watch, meltano_state, variables
from tidemark.project.file_locks import hold

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tidemark.backup.manifest import Database
    from tidemark.backup.store import BackupStore
    from tidemark.project.database_settings import DatabaseSettings
    from tidemark.project.directory import Project

_ATTEMPTS = 3


class Say(Protocol):
    """Prints a line for each step that is done."""

    def __call__(self, text: str) -> None:
        """Print a line."""


@dataclass(frozen=True)
class BackupOptions:
    """How to make a backup, and which older backups to remove afterwards."""

    jobs: int
    keep: int | None
    keep_days: float | None


@contextmanager
def exclusive(project: Project) -> Iterator[int]:
    """Keep other backups and restores of this project out. Yields the lock, which child processes must keep open."""
    with hold(project.state_dir / "backup.lock", doing="making or restoring a backup") as lock:
        yield lock


def make(project: Project, store: BackupStore, options: BackupOptions, say: Say) -> Manifest:
    """Make a backup of everything, and remove expired backups.

    This holds no lock that a run needs. Runs go on, and the dump shows one instant of their work. Meltano's state only
    describes committed rows, and it is read before that instant, so the dump contains everything that it describes. The
    next run after a restore reads again what was loaded between the two.

    Raises:
        BusyError: another backup or restore is active.
        UsageError: the place, a program or a login can't be used.
        TidemarkError: a database can't be reached or dumped, or the disk is full.
    """
    store.prepare()
    with exclusive(project) as lock:
        scratch = project.state_dir / "backup"
        # only backups use this directory, and the process that left something there has ended
        shutil.rmtree(scratch, ignore_errors=True)
        try:
            manifest = _made(project, store, scratch, lock, options, say)
        except OSError as error:
            raise BackupError(
                f"The backup can't be written to {error.filename or store.name}: {error.strerror}; free some space, "
                "or name another place (--to). What was written so far was removed."
            ) from error
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
        _retire(store, manifest, options, say)
    return manifest


def _made(  # noqa: PLR0913, PLR0917 - everything that it needs
    project: Project, store: BackupStore, scratch: Path, lock: int, options: BackupOptions, say: Say
) -> Manifest:
    began = time.monotonic()
    name = new_name(datetime.now(UTC), secrets.token_hex(3))
    _, warehouse = databases.bring_up(project)
    side = backup_settings.login(project, warehouse)
    # check Airflow's database before the long work: a backup without it would be incomplete
    with airflow_database(project) as metadata, store.writing(name, scratch) as directory:
        if metadata:
            connections.connect(metadata).close()
        taken_at, states, found = _pair(project, side, directory, lock, options, say)
        say(f"Meltano: state of {', '.join(states) or 'nothing'}")
        say(f"Warehouse: {found.rows:,} rows of {len(found.tables)} tables")
        more = _dumped(project, metadata, directory / AIRFLOW, lock, options, say) if metadata else None
        if more:
            say(f"Airflow: {more.rows:,} rows of {len(more.tables)} tables")
        else:
            say("Airflow: skipped, because it has no database here (set AIRFLOW_POSTGRES_HOST if it is elsewhere)")
        paths = sorted(path for path in directory.rglob("*") if path.is_file())
        manifest = Manifest(
            name=name,
            pipeline=_pipeline(project, warehouse),
            environment=variables.environment(project),
            state_taken_at=taken_at,
            seconds=round(time.monotonic() - began, 3),
            warehouse=found,
            airflow=more,
            files={path.relative_to(directory).as_posix(): file(path) for path in paths},
        )
        (directory / FILE).write_text(manifest.signed())
    return manifest


def _pair(  # noqa: PLR0913, PLR0917 - everything that it needs
    project: Project, side: DatabaseSettings, directory: Path, lock: int, options: BackupOptions, say: Say
) -> tuple[datetime, dict[str, Any], Database]:
    """Export the state, then dump the data. Return the state's time, the state, and a description of the data."""
    taken: list[tuple[datetime, dict[str, Any]]] = []

    def take() -> None:
        # again before each attempt, because the state must not be newer than the data
        taken.append((datetime.now(UTC), meltano_state.export(project)))
        (directory / STATE).write_text(json.dumps(taken[-1][1], indent=1) + "\n")

    found = _dumped(project, side, directory / WAREHOUSE, lock, options, say, before=take)
    return (*taken[-1], found)


def _dumped(  # noqa: PLR0913, PLR0917 - everything that it needs
    project: Project,
    side: DatabaseSettings,
    directory: Path,
    lock: int,
    options: BackupOptions,
    say: Say,
    before: Callable[[], None] = lambda: None,
) -> Database:
    """Dump a database. Try again if its tables changed meanwhile, or if another session waited to change one."""
    for attempt in range(1, _ATTEMPTS + 1):
        before()
        try:
            return dump(project, side, directory, jobs=options.jobs, lock=lock)
        except MovedError as error:
            shutil.rmtree(directory, ignore_errors=True)
            if attempt == _ATTEMPTS:
                raise BackupError(
                    f"{error} This happened in all {attempt} attempts; run this again at another time."
                ) from error
            say(f"{error} Trying again.")
            time.sleep(lock_watch.PAUSE_S)
    raise AssertionError


def _pipeline(project: Project, warehouse: DatabaseSettings) -> str:
    """Return which pipeline a backup belongs to, for a place that several pipelines share."""
    return f"{variables.environment(project)} {warehouse.address}:{warehouse.port}/{warehouse.database}"


@contextmanager
def airflow_database(project: Project, *, new: bool = False) -> Iterator[DatabaseSettings | None]:
    """Yield the settings of Airflow's database, and start its server if it is down; None if there is no database.

    Args:
        new: create a server if there is none.
    """
    side = database_settings.airflow_database(project)
    if not side.embedded:
        yield side
        return
    server = Server(side, project)
    if not new and not server.exists():
        yield None
        return
    ran = server.running()
    try:
        yield database_settings.admin(project, databases.bring_up_airflow(project))
    finally:
        if not ran and not airflow.running(project):
            fleet.stop(project, [side])


def _retire(store: BackupStore, newest: Manifest, options: BackupOptions, say: Say) -> None:
    """Remove expired backups, but only this pipeline's, and never the newest good one."""
    now = datetime.now(UTC)
    good = []
    for name in store.backups():
        try:
            found = store.manifest(name)
        except TidemarkError:
            # damaged: keep it for a person to look at
            continue
        if found.pipeline == newest.pipeline and not store.missing(found):
            good.append(name)
    removed = retention.expired(good, now=now, keep=options.keep, keep_days=options.keep_days)
    removed += retention.abandoned(store.unfinished(), now=now)
    for name in removed:
        store.remove(name)
        say(f"Removed {name}")
