"""Replaces the release that a project which `tidemark init` made runs on, this program included."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, NoReturn

from tidemark.errors import UsageError
from tidemark.project.file_locks import hold
from tidemark.release import definitions, write

if TYPE_CHECKING:
    from tidemark.project.directory import Project

# set-up may replace this program, so another process goes on
_SET_UP = '"$0" plugins/bootstrap.py && exec .venv/bin/tidemark upgrade --check'


def install(project: Project, version: str | None) -> NoReturn:
    """Write the generated files, set the project up, and have the new program say what it brings.

    Args:
        version: that of wheels in the project's wheelhouse/; None for the project's own.

    Raises:
        UsageError: a wheel is missing.
    """
    path = project.root / write.VERSION_FILE
    with hold(project.pipeline_lock, doing="running the pipeline"):
        if version is None:
            done = write.write(project.root)
            for line in [*(f"Wrote {name} again." for name in done.written), *done.notes()]:
                print(line, flush=True)  # noqa: T201 - as set-up, which follows
        else:
            wheelhouse = project.root / definitions.WHEELHOUSE
            for package in definitions.DISTRIBUTIONS:
                if not (wheelhouse / (wheel := definitions.wheel(package, version))).is_file():
                    raise UsageError(f"{wheelhouse} has no {wheel}; copy the release's wheels there, or correct --to.")
            path.write_text(f"{version}\n", encoding="utf-8")
    os.chdir(project.root)
    os.execv("/bin/sh", ["sh", "-c", _SET_UP, sys.executable])  # noqa: S606 - a constant
