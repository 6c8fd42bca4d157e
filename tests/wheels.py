"""Wheels of this repository, built as `make wheels` builds them."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

from tests.conftest import REPOSITORY
from tests.integration.stages import copy_files

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path


def build(copy: Path, *, version: str | None = None, more: Mapping[str, str] | None = None) -> Path:
    """Build all wheels in a copy of the repository, and return the directory that has them.

    Args:
        version: the version that they get, instead of the repository's.
        more: files that this release has, and the repository does not.
    """
    copy_files(copy)
    for name, text in (more or {}).items():
        (copy / name).write_text(text)
    (copy / ".venv").symlink_to(REPOSITORY / ".venv")
    for file in copy.glob("plugins/*/pyproject.toml"):
        if version:
            (line,) = (line for line in file.read_text().splitlines() if line.startswith("version = "))
            file.write_text(file.read_text().replace(line, f'version = "{version}"', 1))
    # don't install again there what is installed here
    command = ["make", "--silent", "--old-file=setup", "wheels"]
    done = subprocess.run(command, cwd=copy, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return copy / "dist"
