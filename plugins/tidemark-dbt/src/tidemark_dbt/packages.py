"""dbt's packages, for a project that lacks them: after a `git pull` that added the first one, or when it was moved."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
from pathlib import Path

from dbt_common.exceptions import DbtRuntimeError


def install_missing(project: Path) -> None:
    """Run `dbt deps` if the project lists packages and has none of them installed.

    If only some are missing, dbt names them itself.

    Raises:
        DbtRuntimeError: they can't be installed.
    """
    if not (project / "packages.yml").exists() or _installed(project):
        return
    directory = os.open(project, os.O_RDONLY)
    try:
        # two runs that begin at the same time must not remove each other's packages
        fcntl.flock(directory, fcntl.LOCK_EX)
        if not _installed(project):
            # a process of its own: dbt changes its working directory for it
            dbt = Path(sys.executable).with_name("dbt")
            done = subprocess.run(
                [dbt, "--quiet", "deps", "--project-dir", project], capture_output=True, text=True, check=False
            )
            if done.returncode:
                said = (done.stdout + done.stderr).strip()
                raise DbtRuntimeError(f"The packages in {project / 'packages.yml'} can't be installed: {said}")
    finally:
        os.close(directory)


def _installed(project: Path) -> bool:
    """Whether packages are installed. A local package is a link, which leads nowhere once the project is moved."""
    found = [path.exists() for path in (project / "dbt_packages").glob("*")]
    return bool(found) and all(found)
