"""Installs the packages that transform/packages.yml lists, after this program changed the file."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

from tidemark.errors import TidemarkError

if TYPE_CHECKING:
    from tidemark.project.directory import Project


def install(project: Project) -> None:
    """Run `dbt deps`, which also writes package-lock.yml. Without dbt, `make setup` does it.

    Raises:
        TidemarkError: it failed.
    """
    dbt = project.plugins / "utilities" / "dbt-postgres" / "venv" / "bin" / "dbt"
    if not dbt.exists():
        return
    transform = project.root / "transform"
    command = [str(dbt), "--quiet", "--log-level-file", "none", "deps", "--project-dir", str(transform)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        said = " ".join((done.stdout + done.stderr).split())
        raise TidemarkError(f"dbt can't install the packages in {transform / 'packages.yml'}: {said}")
