"""The directory of the servers' data: below .tidemark/, or elsewhere if the servers' user can't get in there."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tidemark.local.postgres.account import Account
    from tidemark.project.directory import Project

_OUTSIDE = Path("/var/lib/tidemark")


def find(project: Project) -> Path:
    """Return the directory of the servers' data, whether it exists or not."""
    return Path(os.path.realpath(project.state_dir / "postgres"))


def make(project: Project, account: Account) -> Path:
    """Create that directory, open to `account`, and return it.

    Root's project often lies in a home directory that is closed to others, so that a server of another user couldn't
    read its own data. Then the data goes to /var/lib/tidemark, and .tidemark/ has a link to it.
    """
    link = project.state_dir / "postgres"
    if not link.is_symlink() and not link.exists():
        project.state_dir.mkdir(exist_ok=True)
        if account.reaches(project.state_dir):
            link.mkdir(exist_ok=True)
        else:
            tag = hashlib.sha256(str(project.root).encode()).hexdigest()[:8]
            link.symlink_to(_OUTSIDE / f"{project.root.name}-{tag}")
    home = find(project)
    for directory in (_OUTSIDE, home) if home.is_relative_to(_OUTSIDE) else (home,):
        directory.mkdir(exist_ok=True)
        if account.switch:
            # root's umask may have closed the directory
            directory.chmod(0o755)
    return home
