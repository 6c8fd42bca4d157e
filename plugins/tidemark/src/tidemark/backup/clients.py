"""Which pg_dump and pg_restore to run: new enough for the server, and for the dump."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tidemark import settings
from tidemark.errors import UsageError
from tidemark.postgres import binaries

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tidemark.project import Project
    from tidemark.settings import Side

_PROGRAMS = ("pg_dump", "pg_restore")
# how pg_dump is told, by what the manifest calls it; a bare number is gzip, as releases before 16 want it
COMPRESSIONS = {"zstd": "zstd", "gzip": "1"}


@dataclass(frozen=True)
class Clients:
    """A directory that holds both programs, of one major version."""

    directory: Path
    major: int

    def __getitem__(self, program: str) -> str:
        """Return the path of `program`."""
        return str(self.directory / program)

    def compression(self) -> str:
        """Return the best compression that was built in: zstd takes a fraction of gzip's time."""
        return "zstd" if self.has("zstd") else "gzip"

    def has(self, compression: str) -> bool:
        """Whether the programs know a compression. It is looked at before pg_dump connects, here to nobody."""
        if compression == "gzip":
            return True
        with tempfile.TemporaryDirectory() as scratch:
            done = subprocess.run(
                [
                    *(self["pg_dump"], "--format=directory", f"--file={scratch}/probe", "--no-password"),
                    *(f"--compress={COMPRESSIONS[compression]}", f"--host={scratch}", "--dbname=probe"),
                ],
                check=False,
                capture_output=True,
                text=True,
            )
        return "compress" not in done.stderr


def find(project: Project, side: Side, *, at_least: int, compression: str = "gzip") -> Clients:
    """Return the programs to use on `side`: of those that will do, the nearest in version.

    Args:
        at_least: the major version of the server, or of the pg_dump that made the dump.
        compression: of the dump.

    Raises:
        UsageError: there are none.
    """
    found = list(_candidates(project, side))
    fitting = [each for each in found if each.major >= at_least and each.has(compression)]
    if fitting:
        # the first of equals: they are in the order of preference
        return min(fitting, key=lambda each: each.major)
    there = ", ".join(f"{each.directory} has {each.major}" for each in found) or "none was found"
    built = f" with {compression}" if compression != "gzip" else ""
    raise UsageError(
        f"pg_dump and pg_restore {at_least} or newer{built} are needed for the {side}, and {there}; install the client "
        f"programs of PostgreSQL {at_least}, or set TIDEMARK_POSTGRES_BIN to the directory that has them."
    )


def _candidates(project: Project, side: Side) -> Iterator[Clients]:
    configured = settings.postgres_bin(project)
    installed = shutil.which("pg_dump")
    places = [configured, Path(installed).parent if installed else None]
    # the wheel's have no TLS
    if not side.ssl_enable:
        places.append(_wheel())
    for place in filter(None, places):
        if all(os.access(place / program, os.X_OK) for program in _PROGRAMS) and (major := _major(place / "pg_dump")):
            yield Clients(place, major)


def _wheel() -> Path | None:
    try:
        return binaries.find(None).directory
    except UsageError:
        return None


def _major(program: Path) -> int | None:
    try:
        answer = subprocess.run([program, "--version"], check=True, capture_output=True, text=True).stdout
    except (OSError, subprocess.CalledProcessError):
        return None
    found = re.search(r"\) (\d+)", answer)
    return int(found[1]) if found else None
