"""The commands `tidemark airflow …`, and the schedules that Airflow runs."""

from __future__ import annotations

import sys
from contextlib import suppress

import typer
from rich.console import Console

from tidemark.errors import Interruption
from tidemark.local import airflow
from tidemark.project.directory import Project

airflow_app = typer.Typer(help="Airflow on this machine, which runs the schedules.", no_args_is_help=True)
console = Console(highlight=False)


@airflow_app.command("up")
def airflow_up() -> None:
    """Run Airflow until Ctrl-C: its metadata's server, API server, scheduler, DAG processor and triggerer."""
    with suppress(Interruption):
        # here, Ctrl-C is how the command ends well
        raise typer.Exit(airflow.up(Project.find()))


@airflow_app.command("down")
def airflow_down() -> None:
    """End it from elsewhere; its data stays."""
    console.print("Stopped." if airflow.down(Project.find()) else "Airflow was not running.")


def schedules() -> None:
    """Print Meltano's schedules as Airflow's DAGs are made from them; `make schedules` keeps them in orchestrate/."""
    from tidemark.project.schedules import export  # noqa: PLC0415

    sys.stdout.write(export(Project.find()))
