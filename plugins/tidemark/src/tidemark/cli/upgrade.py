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
        bool, typer.Option("--check", help="Only say what the release of the project's files brings.")
    ] = False,
    to: Annotated[
        str | None, typer.Option(help="The version to install, whose wheels are in wheelhouse/.", metavar="VERSION")
    ] = None,
) -> None:
    """Say what a release brings: its changes, migrations that the next run does, names that are gone.

    Without --check, also install the release into a project that `tidemark init` made, and write its generated files.
    """
    from tidemark.inspect.check import show  # noqa: PLC0415
    from tidemark.inspect.check.finding import Level  # noqa: PLC0415
    from tidemark.inspect.upgrade import changes, generated, migrations, names  # noqa: PLC0415
    from tidemark.local import own_release  # noqa: PLC0415
    from tidemark.release import write  # noqa: PLC0415

    project = Project.find()
    if check and to:
        raise UsageError("--check installs nothing, so it needs no --to: omit one of them.")
    if not check and write.is_clone(project.root):
        raise UsageError(
            "A clone is upgraded by `git pull upstream main`; then `tidemark upgrade --check` says what that brings: "
            "see docs/how-to/upgrading.md."
        )
    if not check:
        own_release.install(project, to)
    for line in changes.lines(project):
        console.print(line, soft_wrap=True, markup=False)
    found = [*generated.findings(project), *migrations.findings(project), *names.findings(project)]
    show.show(console, found)
    if any(finding.level is Level.error for finding in found):
        raise TidemarkError("The next run would fail, as said above; correct that before it.")
