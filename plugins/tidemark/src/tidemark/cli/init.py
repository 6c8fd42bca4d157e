"""The command `tidemark init`."""

from __future__ import annotations

import os
from pathlib import Path  # noqa: TC003 - typer reads the annotations
from typing import Annotated

import typer
from rich.console import Console

console = Console(highlight=False)


def init(
    directory: Annotated[Path, typer.Argument(help="A new or empty directory.")],
    wheels: Annotated[
        Path | None, typer.Option(help="The directory of the release's wheels; by default, that of this program's.")
    ] = None,
) -> None:
    """Make a project in a directory of its own, which needs no clone of Tidemark."""
    from tidemark.project import new_project  # noqa: PLC0415

    project = new_project.make(directory, wheels=wheels)
    console.print(f"Made the project {project.root}. Next:", soft_wrap=True, markup=False)
    for command, what in (
        (f"cd {os.path.relpath(project.root)}", ""),
        ("make setup", "install everything into it"),
        (".venv/bin/tidemark onboard app --host …", "take a database of yours on board"),
        (".venv/bin/tidemark demo add", "or have the demo shop, for `make pipeline`"),
        ("git init && git add --all && git commit", "it is yours"),
    ):
        console.print(f"  {command:<44}{f'# {what}' if what else ''}".rstrip(), soft_wrap=True, markup=False)
