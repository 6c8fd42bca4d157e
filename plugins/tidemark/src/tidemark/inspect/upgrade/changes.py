"""The versions before and after, and what the changelog says about the difference."""

from __future__ import annotations

import re
import subprocess
import tomllib
from importlib import metadata
from typing import TYPE_CHECKING

from tidemark.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tidemark.project.directory import Project

_CHANGELOG = "CHANGELOG.md"
_SHOWN = 12
_HEADING = re.compile(r"^## \[([^\]]+)\]", re.MULTILINE)


def lines(project: Project) -> Iterator[str]:
    """Yield what to print about the release.

    Raises:
        UsageError: a file that a release ships is missing.
    """
    # written when the package was installed, and so before a merge that `make setup` has not followed
    installed, shipped = metadata.version("tidemark"), _shipped(project)
    if installed == shipped:
        yield f"The files and what is installed are of version {shipped}."
    else:
        yield f"The files are of version {shipped}, and {installed} is installed: `make setup` installs it."
        sections = [name for name in _HEADING.findall(_text(project, _CHANGELOG)) if name != "Unreleased"]
        newer = sections[: sections.index(installed)] if installed in sections else sections
        if newer:
            yield f"{_CHANGELOG} has the sections {', '.join(newer)} for what is new."
    entries = _entries_since_the_merge(project)
    if entries:
        yield f"New in {_CHANGELOG} since the last merge:"
        yield from (f"  - {entry}" for entry in entries[:_SHOWN])
        if len(entries) > _SHOWN:
            yield f"  and {len(entries) - _SHOWN} more: git diff ORIG_HEAD -- {_CHANGELOG}"


def _shipped(project: Project) -> str:
    version: str = tomllib.loads(_text(project, "plugins/tidemark/pyproject.toml"))["project"]["version"]
    return version


def _text(project: Project, name: str) -> str:
    try:
        return (project.root / name).read_text(encoding="utf-8")
    except OSError as error:
        raise UsageError(f"{project.root / name} can't be read: {error.strerror}; restore it with git.") from None


def _entries_since_the_merge(project: Project) -> list[str]:
    """Return the first sentence of each entry that the last merge added; none if there was no merge."""
    command = ["git", "diff", "--unified=0", "ORIG_HEAD", "HEAD", "--", _CHANGELOG]
    try:
        done = subprocess.run(command, cwd=project.root, capture_output=True, text=True, check=False)
    except OSError:
        # an installed project may have no git
        return []
    if done.returncode:
        return []
    added = re.findall(r"^\+- ((?:.*\n)(?:\+  .*\n)*)", done.stdout, re.MULTILINE)
    return [re.split(r"(?<=\.) ", " ".join(entry.replace("\n+", "\n").split()))[0] for entry in added]
