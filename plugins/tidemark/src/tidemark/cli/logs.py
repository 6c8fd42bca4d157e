"""The commands about log lines in Elasticsearch."""

from __future__ import annotations

import sys
from pathlib import Path  # noqa: TC003 - typer reads it
from typing import Annotated

import typer

from tidemark.project.database_settings import LOOPBACK
from tidemark.project.directory import Project

logs_app = typer.Typer(help="Send the log lines of all runs to Elasticsearch.", no_args_is_help=True)


@logs_app.command()
def ship(
    directory: Annotated[
        list[Path] | None,
        typer.Argument(
            help="Where to look for log files, in all directories below [default: this machine's logs of runs, of its "
            "servers and of Airflow]."
        ),
    ] = None,
    *,
    once: Annotated[
        bool, typer.Option("--once", help="Exit when all present lines are stored, with an error if they can't be.")
    ] = False,
    refused: Annotated[
        Path | None,
        typer.Option(
            help="The file of lines that Elasticsearch can never store [default: .tidemark/logs-refused.jsonl]."
        ),
    ] = None,
    port: Annotated[
        int | None,
        typer.Option(min=1, max=65535, help="Serve the shipper's metrics for Prometheus on this port, such as 9465."),
    ] = None,
    host: Annotated[str, typer.Option(help="The address to serve them on; 0.0.0.0 for all.")] = LOOPBACK,
) -> None:
    """Send each line of the log files to Elasticsearch until SIGTERM. A kill or an outage loses and doubles no line."""
    from tidemark.logs.shipping import ship as ship_  # noqa: PLC0415

    ship_(Project.find(), directory, once=once, refused=refused, say=_say, serve_on=(host, port) if port else None)


@logs_app.command()
def dashboards() -> None:
    """Import the dashboard and the saved searches into Kibana. Earlier copies of the same ones are replaced."""
    from tidemark.logs.kibana import import_objects  # noqa: PLC0415

    count = import_objects(Project.find())
    typer.echo(f'Kibana has {count} objects: open the dashboard "Tidemark\'s runs".')


def _say(line: str) -> None:
    sys.stderr.write(f"{line}\n")
    sys.stderr.flush()
