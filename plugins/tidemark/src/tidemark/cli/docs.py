"""The command `tidemark docs`."""

from __future__ import annotations

from contextlib import suppress
from typing import Annotated

import typer
from rich.console import Console

from tidemark.errors import Interruption
from tidemark.local import databases
from tidemark.project import database_settings
from tidemark.project.directory import Project

console = Console(highlight=False)


def docs(
    host: Annotated[str, typer.Option(help="The address to listen on; 0.0.0.0 for all.")] = database_settings.LOOPBACK,
    port: Annotated[int, typer.Option(min=1, max=65535, help="The port to listen on.")] = 8081,
) -> None:
    """Build the models' documentation and serve it until Ctrl-C or SIGTERM."""
    from tidemark.local import documentation  # noqa: PLC0415

    project = Project.find()
    databases.bring_up_warehouse(project)
    with console.status("Building the documentation …"):
        directory = documentation.build(project)
    with documentation.serving(directory, host, port) as serve:
        address = f"[{host}]" if ":" in host else host
        console.print(f"The documentation is on http://{address}:{port}; Ctrl-C ends this.")
        # Ctrl-C is the normal end of this command
        with suppress(Interruption):
            serve()
