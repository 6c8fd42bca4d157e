"""The command `tidemark metrics`."""

from __future__ import annotations

import threading
from contextlib import suppress
from pathlib import Path  # noqa: TC003  (typer needs it at run time)
from typing import Annotated

import typer
from rich.console import Console

from tidemark.errors import Interruption
from tidemark.project import database_settings
from tidemark.project.directory import Project

console = Console(highlight=False)


def metrics(
    host: Annotated[str, typer.Option(help="The address to listen on; 0.0.0.0 for all.")] = database_settings.LOOPBACK,
    port: Annotated[int, typer.Option(min=1, max=65535, help="The port to listen on.")] = 9464,
    textfile: Annotated[
        Path | None, typer.Option(help="Write one scrape to this file for node_exporter, and end.", dir_okay=False)
    ] = None,
) -> None:
    """Serve Prometheus' metrics of streams, models and backups until Ctrl-C or SIGTERM."""
    from tidemark.metrics import exporter as exporter_  # noqa: PLC0415
    from tidemark.project.metrics_server import serve  # noqa: PLC0415

    exporter = exporter_.Exporter(Project.find(), _say)
    if textfile:
        exporter_.write_textfile(exporter, textfile)
        return
    end = serve(exporter_.registry(exporter), host, port)
    address = f"[{host}]" if ":" in host else host
    _say(f"The metrics are on http://{address}:{port}/metrics; Ctrl-C ends this.")
    # Ctrl-C is the normal end of this command
    with suppress(Interruption):
        threading.Event().wait()
    end()


def _say(text: str) -> None:
    console.print(text, markup=False, soft_wrap=True)
