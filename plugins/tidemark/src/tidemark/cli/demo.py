"""The commands `tidemark demo …`."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from tidemark.local import databases, demo
from tidemark.project.directory import Project

demo_app = typer.Typer(help="Fill the demo shop, and make traffic in it.", no_args_is_help=True)
console = Console(highlight=False)


@demo_app.command("load")
def demo_load(
    scale: Annotated[float, typer.Option(min=0.0001, help="1 means 100,000 customers and 500,000 orders.")] = 0.01,
    as_of: Annotated[
        datetime | None, typer.Option(help="The end of the three years of history, UTC [default: today's midnight].")
    ] = None,
) -> None:
    """Fill the source with the demo shop. The same scale and end give the same rows."""
    project = Project.find()
    source, _ = databases.bring_up(project)
    with console.status(f"Loading the demo shop at scale {scale:g} …"):
        as_of = as_of and as_of.replace(tzinfo=as_of.tzinfo or UTC)
        did = demo.load(project, source, scale=scale, as_of=as_of)
    console.print(f"{'Loaded' if did else 'Found'} the demo shop at scale {scale:g} in the {source}.", soft_wrap=True)


@demo_app.command("change")
def demo_change(
    rows: Annotated[int, typer.Option(min=1, help="About how many rows to change.")] = 200,
    seed: Annotated[int | None, typer.Option(help="The same seed makes the same traffic in the same shop.")] = None,
) -> None:
    """Make a day's traffic: new orders, changes of status, new prices and addresses, a few deletes."""
    project = Project.find()
    source, _ = databases.bring_up(project)
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("table")
    table.add_column("change")
    table.add_column("rows", justify="right")
    for name, what, count in demo.change(project, source, rows=rows, seed=seed):
        table.add_row(name, what, f"{count:,}")
    console.print(table)
