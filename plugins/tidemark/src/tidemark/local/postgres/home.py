"""Where the servers' data is kept: below .tidemark/, or outside when the servers' user can't get in there."""

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
    """Return the directory of the servers' data, made or not."""
    return Path(os.path.realpath(project.state_dir / "postgres"))


def make(project: Project, account: Account) -> Path:
    """Return that directory, made and open to `account`.

    Root's project often lies below a home directory that is closed to others, where a server that runs as another
    user can't read its own data. The data then goes to /var/lib/tidemark, and a link in .tidemark/ remembers it.
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
            # root's umask may have closed it
            directory.chmod(0o755)
    return home
