"""The versions before and after, and what the changelog says about the difference."""

from __future__ import annotations

import re
import subprocess
import tomllib
from importlib import metadata
from typing import TYPE_CHECKING

from tidemark.errors import UsageError
from tidemark.release import contents, write

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
    installed, shipped = versions(project)
    if installed == shipped:
        yield f"The files and what is installed are of version {shipped}."
    else:
        yield f"The files are of version {shipped}, and {installed} is installed: `make setup` installs it."
        yield from _sections(project, installed)
    if not write.is_clone(project.root):
        before = _git(project, "show", f"HEAD:./{write.VERSION_FILE}").strip()
        if before and before != shipped and installed == shipped:
            yield f"The last commit has version {before}."
            yield from _sections(project, before)
        return
    entries = _entries_since_the_merge(project)
    if entries:
        yield f"New in {_CHANGELOG} since the last merge:"
        yield from (f"  - {entry}" for entry in entries[:_SHOWN])
        if len(entries) > _SHOWN:
            yield f"  and {len(entries) - _SHOWN} more: git diff ORIG_HEAD -- {_CHANGELOG}"


def versions(project: Project) -> tuple[str, str]:
    """Return the version that is installed, and that of the project's files.

    The first was written when the package was installed, and so before a merge that `make setup` has not followed.

    Raises:
        UsageError: a file that a release ships is missing.
    """
    if write.is_clone(project.root):
        shipped: str = tomllib.loads(_text(project, "plugins/tidemark/pyproject.toml"))["project"]["version"]
    else:
        shipped = _text(project, write.VERSION_FILE).strip()
    return metadata.version("tidemark"), shipped


def _sections(project: Project, before: str) -> Iterator[str]:
    """Yield a line about the sections of the changelog that are newer than a version."""
    path = project.root / _CHANGELOG if write.is_clone(project.root) else contents.root() / _CHANGELOG
    text = path.read_text(encoding="utf-8")
    names = [name for name in _HEADING.findall(text) if name != "Unreleased"]
    if newer := names[: names.index(before)] if before in names else names:
        yield f"{_CHANGELOG} has the sections {', '.join(newer)} for what is new."


def _text(project: Project, name: str) -> str:
    try:
        return (project.root / name).read_text(encoding="utf-8")
    except OSError as error:
        raise UsageError(f"{project.root / name} can't be read: {error.strerror}; restore it with git.") from None


def _entries_since_the_merge(project: Project) -> list[str]:
    """Return the first sentence of each entry that the last merge added; none if there was no merge."""
    added = _git(project, "diff", "--unified=0", "ORIG_HEAD", "HEAD", "--", _CHANGELOG)
    entries = re.findall(r"^\+- ((?:.*\n)(?:\+  .*\n)*)", added, re.MULTILINE)
    return [re.split(r"(?<=\.) ", " ".join(entry.replace("\n+", "\n").split()))[0] for entry in entries]


def _git(project: Project, *arguments: str) -> str:
    """Return what git says; nothing if it fails, or if there is no git, as an installed project may have none."""
    try:
        done = subprocess.run(["git", *arguments], cwd=project.root, capture_output=True, text=True, check=False)
    except OSError:
        return ""
    return "" if done.returncode else done.stdout
