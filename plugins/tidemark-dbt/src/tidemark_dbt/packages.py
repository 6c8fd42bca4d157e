"""dbt's packages, for a project with others installed: after a `git pull` that changed them, or when it was moved."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
from pathlib import Path

import yaml
from dbt_common.exceptions import DbtRuntimeError


def install_missing(project: Path) -> None:
    """Run `dbt deps` if the project lists packages and has others installed.

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
    """Whether the packages of the lock file are installed, and no others: dbt would read those too.

    A local package is a link, which leads nowhere once the project is moved.
    """
    found = {path.name: path.exists() for path in (project / "dbt_packages").glob("*")}
    lock = project / "package-lock.yml"
    if not lock.exists():
        return bool(found) and all(found.values())
    locked = (yaml.safe_load(lock.read_text(encoding="utf-8")) or {}).get("packages") or []
    return all(found.values()) and found.keys() == {package.get("name") for package in locked}
