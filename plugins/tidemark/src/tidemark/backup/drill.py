"""A restore drill: restores a backup into a server of its own, verifies it, and syncs from the source into it.

The drill doesn't touch the configured warehouse or Meltano's state, and it stops everything that it started.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from psycopg import sql
from pydantic import SecretStr

from tidemark.backup import database
from tidemark.backup.manifest import AIRFLOW, DRILL, STATE, WAREHOUSE
from tidemark.backup.restore import fetched
from tidemark.errors import BackupError, TidemarkError, UnreachableError, UsageError
from tidemark.inspect.check import relations, streams
from tidemark.local import databases
from tidemark.local.postgres import binaries
from tidemark.local.postgres.account import account_for
from tidemark.local.postgres.server import Server
from tidemark.project import connections, database_settings, sources
from tidemark.project.database_settings import LOOPBACK
from tidemark.project.directory import Project
from tidemark.project.variables import environment

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tidemark.backup.make import Say
    from tidemark.backup.manifest import Database, Manifest
    from tidemark.backup.store import BackupStore
    from tidemark.local.postgres.binaries import Binaries
    from tidemark.project.database_settings import DatabaseSettings, Source, Warehouse
    from tidemark.project.sources import SourceDefinition

_STOP_S = 30


@dataclass(frozen=True)
class _Scratch(Project):
    """The directory of one scratch server. It ignores TIDEMARK_WORK_DIR."""

    major: int

    @property
    def work(self) -> Path:
        return self.root


class _Server(Server):
    """A server whose version is not older than the dumped one's."""

    project: _Scratch

    def _find_programs(self) -> Binaries:
        named = database_settings.postgres_bin(self.project)
        for place in (named, None):
            found = binaries.find(place)
            if found.major >= self.project.major:
                return found
        raise UsageError(
            f"The backup comes from PostgreSQL {self.project.major}, and the server programs here are older; set "
            "TIDEMARK_POSTGRES_BIN to a directory with programs of that version."
        )


def drill(  # noqa: PLR0913 - each argument has a name
    project: Project, store: BackupStore, name: str, *, jobs: int, sync: bool, say: Say
) -> None:
    """Restore a backup into a scratch server, and sync into it.

    Args:
        sync: also run a load from the source.

    Raises:
        TidemarkError: the backup is damaged, can't be restored, differs from the dump, or a sync can't resume from it.
    """
    began = time.monotonic()
    manifest = store.manifest(store.find(name))
    with _noted(project, store, manifest.name, say):
        _drill(project, store, manifest, jobs=jobs, sync=sync, say=say)
    say(f"The drill succeeded in {time.monotonic() - began:.1f} s")


@contextmanager
def _noted(project: Project, store: BackupStore, name: str, say: Say) -> Iterator[None]:
    """Write beside the backups how a drill ended."""
    at, began = time.time(), time.monotonic()
    error: TidemarkError | None = None
    try:
        yield
    except TidemarkError as raised:
        error = raised
        raise
    finally:
        # an interrupted drill says nothing about the backup
        if error or not sys.exception():
            seconds = round(time.monotonic() - began, 3)
            note = {"backup": name, "environment": environment(project), "at": at, "seconds": seconds}
            try:
                store.put_note(DRILL, {**note, "succeeded": error is None, "code": error and error.code})
            except TidemarkError as unwritten:
                say(f"The result is not kept for `tidemark metrics`: {unwritten}")


def _drill(  # noqa: PLR0913 - each argument has a name
    project: Project, store: BackupStore, manifest: Manifest, *, jobs: int, sync: bool, say: Say
) -> None:
    newest = max(each.server for each in (manifest.warehouse, manifest.airflow) if each)
    with fetched(store, manifest) as directory, _scratch(newest) as scratch:
        say(f"{manifest.name}: all {len(manifest.files)} files are unchanged")
        warehouse = database_settings.warehouse(project)
        side = _side(scratch, warehouse)
        with _running(scratch, side), (scratch.root / "lock").open("w") as lock:
            for what, was in ((WAREHOUSE, manifest.warehouse), (AIRFLOW, manifest.airflow)):
                if was:
                    _restore(
                        scratch, side, was, directory / what, jobs=jobs, lock=lock.fileno(), swap=what == WAREHOUSE
                    )
                    say(f"{what}: {was.rows:,} rows of {len(was.tables)} tables are equal to the dump")
            if sync:
                _go_on(project, scratch, warehouse, side, manifest, directory / STATE, say)


@contextmanager
def _scratch(major: int) -> Iterator[_Scratch]:
    root = Path(tempfile.mkdtemp(prefix="tidemark-drill-"))
    try:
        if account_for(root / "none", root).switch:
            # the server's operating system user needs access
            root.chmod(0o711)
        (root / ".env").touch(mode=0o600)
        (root / ".env").write_text(f"TIDEMARK_ADMIN_PASSWORD={secrets.token_urlsafe(24)}\n")
        yield _Scratch(root, major)
    finally:
        shutil.rmtree(root, ignore_errors=True)


def _side(scratch: _Scratch, warehouse: Warehouse) -> DatabaseSettings:
    """Return the settings of the scratch server's database. No variable contains them."""
    with socket.socket() as probe:
        probe.bind((LOOPBACK, 0))
        port = probe.getsockname()[1]
    own = {"host": None, "port": port, "ssl_enable": False, "ssl_certificate_authority": None}
    return database_settings.admin(scratch, warehouse.model_copy(update=own))


@contextmanager
def _running(scratch: _Scratch, side: DatabaseSettings) -> Iterator[None]:
    server = _Server(side, scratch)
    server.check()
    server.prepare()
    try:
        server.start()
        server.make_database()
        yield
    finally:
        if server.exists():
            server.delete()
        # the data directory may be outside, because root's temporary directory is closed to the server's user
        with suppress(OSError):
            Path(os.path.realpath(scratch.state_dir / "postgres")).rmdir()


def _restore(  # noqa: PLR0913 - each argument has a name
    scratch: _Scratch, side: DatabaseSettings, was: Database, directory: Path, *, jobs: int, lock: int, swap: bool
) -> None:
    with connections.connect(side, database="postgres") as connection:
        for role in database.missing_roles(side, was):
            connection.execute(sql.SQL("create role {}").format(sql.Identifier(role)))
    with database.restored(scratch, side, was, directory, jobs=jobs, lock=lock, any_locale=True) as new:
        if swap:
            database.swap(side, new, aside=None)


def _go_on(  # noqa: PLR0913, PLR0917 - everything that it needs
    project: Project,
    scratch: _Scratch,
    warehouse: Warehouse,
    side: DatabaseSettings,
    manifest: Manifest,
    state: Path,
    say: Say,
) -> None:
    """Prove that the next run after a restore resumes without a gap, with all sources that can be reached."""
    reached = _reached(project, say)
    filters = {source: _without_log(project, source, say) for source in reached}
    reached = {source: side for source, side in reached.items() if filters[source] is not None}
    if not reached:
        return
    password = secrets.token_urlsafe(24)
    with connections.connect(side) as connection:
        connection.execute(
            sql.SQL("alter role {} login password {}").format(sql.Identifier(warehouse.user), sql.Literal(password))
        )
    target = warehouse.model_copy(update={"host": LOOPBACK, "port": side.port, "password": SecretStr(password)})
    child = _Child(
        project,
        {
            **{name: value for source in reached.values() for name, value in source.variables().items()},
            **{name: value for found in filters.values() if found for name, value in found.items()},
            **target.variables(),
            "TARGET_POSTGRES_SSL_ENABLE": "false",
            # a scratch state, wherever the project keeps its own
            "MELTANO_DATABASE_URI": f"sqlite:///{scratch.root}/meltano.db",
            "MELTANO_STATE_BACKEND_URI": "systemdb",
            "MELTANO_ENVIRONMENT": environment(project),
            "TIDEMARK_WORK_DIR": str(scratch.root / "work"),
        },
    )
    (scratch.root / "work").mkdir()
    child.run("meltano", "state", "import", str(state))
    fit = sum(
        len(json.loads(child.run("tidemark", "state", "check", "--json", f"--source={source.name}")))
        for source in reached
    )
    say(f"state: {fit} streams fit the warehouse, and no stream is ahead of it")
    blocks = [block for source in reached for block in source.blocks.split()]
    report: dict[str, Any] = json.loads(child.run("tidemark", "run", "--json", *blocks).splitlines()[-1])["report"]
    rows = [sum(stream.get(what, 0) for stream in report["streams"].values()) for what in ("read", "inserted")]
    of_several = f" of {' and '.join(source.name for source in reached)}" if len(reached) > 1 else ""
    say(
        f"A sync{of_several} resumed from {manifest.made_at:%Y-%m-%d %H:%M:%S} UTC: {rows[0]:,} rows read, "
        f"{rows[1]:,} of them new"
    )


def _reached(project: Project, say: Say) -> dict[SourceDefinition, Source]:
    """Return the sources in use that can be reached. Say which can't."""
    found = {}
    for definition in sources.active(project):
        try:
            source, _ = databases.bring_up(project, definition)
            connections.connect(source).close()
        except (UnreachableError, UsageError) as error:
            say(f"No sync of {definition.name} was tried, because the source can't be reached: {error}")
        else:
            found[definition] = source
    return found


def _without_log(project: Project, source: SourceDefinition, say: Say) -> dict[str, str] | None:
    """Return the variables that leave a source's LOG_BASED streams out; None if it has no others.

    The drill would read their slot and confirm positions that the real warehouse does not have.
    """
    configuration = streams.configuration(project, source)
    with connections.connect(database_settings.source(project, source)) as connection:
        with connection.transaction():
            found, _ = relations.read(connection, configuration.schemas)
        selected = streams.selected(configuration, streams.discovered(configuration, found))
    of_log = [stream.name for stream in selected if stream.method == "LOG_BASED"]
    if not of_log:
        return {}
    say(f"No sync of {len(of_log)} LOG_BASED streams of {source.name} was tried: it would move their replication slot")
    if len(of_log) == len(selected):
        return None
    filters = [*configuration.select_filter, *(f"!{name}" for name in of_log)]
    return {f"{source.prefix}__SELECT_FILTER": json.dumps(filters)}


@dataclass(frozen=True)
class _Child:
    """Runs the project's programs in an environment that points to the scratch server."""

    project: Project
    variables: dict[str, str]

    def run(self, program: str, *arguments: str) -> str:
        """Run a program to its end, and return its output.

        Raises:
            TidemarkError: the program failed.
        """
        with subprocess.Popen(
            [self.project.meltano.with_name(program), *arguments],
            cwd=self.project.root,
            env={**os.environ, **self.variables, "MELTANO_PROJECT_ROOT": str(self.project.root)},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
        ) as child:
            try:
                # without a time limit: a sync takes as long as it takes, and watches its own connections
                printed, said = child.communicate()
            except BaseException:
                child.terminate()
                with suppress(subprocess.TimeoutExpired):
                    child.communicate(timeout=_STOP_S)
                child.kill()
                raise
        if child.returncode:
            lines = said.strip().splitlines() or printed.strip().splitlines() or ["it printed nothing"]
            raise BackupError(
                f"A sync can't resume from the restored backup: {program} {' '.join(arguments[:2])}: "
                f"{lines[-1].removeprefix('error: ')}"
            )
        return printed
