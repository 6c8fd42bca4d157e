"""The command `tidemark upgrade`."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.console import Console

from tidemark.errors import TidemarkError, UsageError
from tidemark.project.directory import Project

console = Console(highlight=False)


def upgrade(
    check: Annotated[  # noqa: FBT002
        bool, typer.Option("--check", help="Say what the merged release brings. Nothing is changed.")
    ] = False,
) -> None:
    """Say what a merged release brings: its changes, migrations that the next run does, names that are gone."""
    from tidemark.inspect.check import show  # noqa: PLC0415
    from tidemark.inspect.check.finding import Level  # noqa: PLC0415
    from tidemark.inspect.upgrade import changes, migrations, names  # noqa: PLC0415

    if not check:
        raise UsageError(
            "A project is upgraded by `git pull upstream main`; then `tidemark upgrade --check` says what that brings: "
            "see docs/how-to/upgrading.md."
        )
    project = Project.find()
    for line in changes.lines(project):
        console.print(line, soft_wrap=True, markup=False)
    found = [*migrations.findings(project), *names.findings(project)]
    show.show(console, found)
    if any(finding.level is Level.error for finding in found):
        raise TidemarkError("The next run would fail, as said above; correct that before it.")
