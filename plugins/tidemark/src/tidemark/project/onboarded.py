"""Which tables of a source onboarding knows, for those who don't write its files."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from tidemark.errors import UsageError

if TYPE_CHECKING:
    from pathlib import Path

    from tidemark.project.directory import Project


def manifest_path(project: Project, source: str) -> Path:
    """Return where onboarding keeps what it wrote for a source."""
    return project.root / "extract" / f"{source}.onboarded.json"


def decided_streams(project: Project, source: str) -> set[str] | None:
    """Return the streams that are on board or were left out; None if the source never was onboarded.

    Raises:
        UsageError: the file can't be read.
    """
    path = manifest_path(project, source)
    if not path.exists():
        return None
    try:
        found = json.loads(path.read_text())
        return {*found["tables"], *found.get("left_out", ()), *found.get("not_read", ())}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UsageError(f"{path} can't be read ({error}); restore it from git.") from None
