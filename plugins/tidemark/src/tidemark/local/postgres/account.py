"""The operating system user of a server. PostgreSQL refuses to run as root, so root uses another user."""

from __future__ import annotations

import os
import pwd
import subprocess
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path


@dataclass(frozen=True)
class Account:
    """A user to run server programs as. `switch` is false if it is the current user."""

    uid: int
    gid: int
    switch: bool

    @property
    def popen(self) -> dict[str, Any]:
        """Arguments for subprocess.run and Popen that run a child as this user."""
        return {"user": self.uid, "group": self.gid, "extra_groups": []} if self.switch else {}

    def own(self, path: Path) -> None:
        """Give `path` to this user."""
        if self.switch:
            os.chown(path, self.uid, self.gid)

    def reaches(self, path: Path) -> bool:
        """Return whether this user can enter the directory `path`, or execute it if it is a file."""
        if not self.switch:
            return True
        # ask the kernel, because file modes don't show ACLs and mounts
        return subprocess.run(["test", "-x", str(path)], check=False, cwd="/", **self.popen).returncode == 0


def account_for(data: Path, project_root: Path) -> Account:
    """Return the user to run the server with data directory `data`, which need not exist.

    If the current user is not root, it is the current user. For root, it is the owner of the data, or else of the
    project, or else `postgres` or `nobody`.
    """
    if os.geteuid() != 0:
        return Account(os.geteuid(), os.getegid(), switch=False)
    for path in (data, project_root):
        if path.exists() and (owner := path.stat()).st_uid != 0:
            return Account(owner.st_uid, owner.st_gid, switch=True)
    for name in ("postgres", "nobody"):
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            continue
        return Account(entry.pw_uid, entry.pw_gid, switch=True)
    return Account(65534, 65534, switch=True)
