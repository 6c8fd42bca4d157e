"""Whether the files that a release generates are as this one gives them: nobody needs to edit them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tidemark.inspect.check.finding import Finding, Level
from tidemark.inspect.upgrade import changes
from tidemark.release import write

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tidemark.project.directory import Project


def findings(project: Project) -> Iterator[Finding]:
    """Yield a warning for each file that differs.

    Raises:
        UsageError: a file that a release ships is missing.
    """
    installed, wanted = changes.versions(project)
    if installed != wanted:
        return
    again = "make definitions" if write.is_clone(project.root) else "tidemark upgrade"
    for name in write.changed(project.root):
        yield Finding("both", Level.warning, f"{name} is not as this release has it; `{again}` writes it again")
