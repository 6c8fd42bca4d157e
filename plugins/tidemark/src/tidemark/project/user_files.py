"""Which files of a project are the user's, and which a release ships.

A release changes no file of the user's, and a user needs to edit no file that a release ships, so that git merges both.
"""

from __future__ import annotations

from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from tidemark.release import contents

if TYPE_CHECKING:
    from tidemark.project.directory import Project

# as docs/how-to/upgrading.md lists them
_DIRECTORIES = ("extract", "load", "transform")
_FILES = ("meltano.yml", "orchestrate/schedules.json")
_SHIPPED = PurePosixPath("transform", "packages")


def is_users(name: str) -> bool:
    """Return whether a file is the user's.

    Args:
        name: its path in the project, with slashes.
    """
    path = PurePosixPath(name)
    if path.parts[0] == "orchestrate":
        return name in _FILES or (len(path.parts) == 2 and name.endswith(".meltano.yml"))  # noqa: PLR2004 - in no folder
    return name in _FILES or (path.parts[0] in _DIRECTORIES and not path.is_relative_to(_SHIPPED))


def as_cloned(project: Project) -> Path:
    """Return the directory that has the user's files as a new clone has them, with the demo shop."""
    linked = project.root / "demo" / "project"
    # a project that was made a moment ago has no links into the release yet
    return linked if linked.is_dir() else Path(str(contents.root())) / "demo" / "project"
