"""The command `tidemark monitor`."""

from __future__ import annotations

from contextlib import suppress
from typing import Annotated

import typer
from rich.console import Console

from tidemark.errors import Interruption
from tidemark.project.directory import Project

console = Console(highlight=False)


def monitor(
    port: Annotated[int, typer.Option(min=1, max=65535, help="The port of the exporter of metrics.")] = 9464,
    prometheus_port: Annotated[int, typer.Option(min=1, max=65535, help="The port of Prometheus.")] = 9090,
    alertmanager_port: Annotated[int, typer.Option(min=1, max=65535, help="The port of Alertmanager.")] = 9093,
) -> None:
    """Export metrics on this machine until Ctrl-C, with Prometheus and Alertmanager if they are on PATH."""
    from tidemark.local import monitoring  # noqa: PLC0415

    # Ctrl-C is the normal end of this command
    with suppress(Interruption):
        monitoring.run(Project.find(), monitoring.Ports(port, prometheus_port, alertmanager_port), console.print)
