"""The commands `tidemark airflow …`, and `tidemark schedules`."""

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
    """Run Airflow until Ctrl-C: its database server, API server, scheduler, DAG processor and triggerer."""
    from tidemark.project.schedules import refresh  # noqa: PLC0415

    project = Project.find()
    refresh(project)
    with suppress(Interruption):
        # Ctrl-C is the normal end of this command
        raise typer.Exit(airflow.up(project))


@airflow_app.command("down")
def airflow_down() -> None:
    """Stop Airflow from another terminal. Its data stays."""
    console.print("Stopped." if airflow.down(Project.find()) else "Airflow was not running.")


def schedules() -> None:
    """Print Meltano's schedules as JSON, as Airflow's DAGs are made from them, and write orchestrate/schedules.json."""
    from tidemark.project.schedules import current  # noqa: PLC0415

    sys.stdout.write(current(Project.find()))
