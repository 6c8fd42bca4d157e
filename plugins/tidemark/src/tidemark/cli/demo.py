"""The commands `tidemark demo …`."""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from tidemark.errors import UsageError
from tidemark.local import databases, dbt_packages, demo
from tidemark.project import demo_files
from tidemark.project.directory import Project
from tidemark.project.file_locks import hold

demo_app = typer.Typer(
    help="Fill the demo shop, make traffic in it, or take it out of the project.", no_args_is_help=True
)
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


@demo_app.command("remove")
def demo_remove(
    drop_marts: Annotated[  # noqa: FBT002
        bool, typer.Option("--drop-marts", help="Also drop the shop's tables and views in the warehouse.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask before the tables are dropped.")] = False,  # noqa: FBT002
) -> None:
    """Take the demo shop out of your files: its streams, models and tests. What a release ships stays."""
    project = Project.find()
    with hold(project.pipeline_lock, doing="running the pipeline"):
        dropped = _drop(project, ask=not yes) if drop_marts else False
        if dropped is None:
            console.print("Nothing was changed.")
            return
        changes = demo_files.remove(project)
        _tell(project, changes)
    if not changes and not dropped:
        console.print("The demo shop is not in this project; there is nothing to remove.")
    elif changes:
        if not dropped:
            stay = "The shop's tables in the warehouse stay; `tidemark demo remove --drop-marts` drops them."
            console.print(stay, soft_wrap=True)
        back = "`tidemark demo add` puts the shop back. Its dashboard follows at the next `make compose-up`."
        console.print(back, soft_wrap=True)


@demo_app.command("add")
def demo_add() -> None:
    """Put the demo shop back into your files, as a new clone has it."""
    project = Project.find()
    with hold(project.pipeline_lock, doing="running the pipeline"):
        changes = demo_files.add(project)
        _tell(project, changes)
    if not changes:
        console.print("The demo shop is in this project; there is nothing to add.")


def _tell(project: Project, changes: list[demo_files.Change]) -> None:
    for name, what in changes:
        console.print(f"{name}: {what}", soft_wrap=True)
    if changes:
        dbt_packages.install(project)


def _drop(project: Project, *, ask: bool) -> bool | None:
    """Drop the shop's tables. Return whether there were any; None if the user does not want it."""
    from tidemark.local import demo_tables  # noqa: PLC0415

    source, warehouse = databases.bring_up(project)
    tables = demo_tables.find(project, source, warehouse)
    if not tables:
        console.print(f"The {warehouse} has no table of the shop.", soft_wrap=True)
        return False
    for table in tables:
        console.print(f"Will drop the {table.kind} {table}", soft_wrap=True)
    if ask and not sys.stdin.isatty():
        raise UsageError(
            "There is no terminal to ask on; to drop these anyway: `.venv/bin/tidemark demo remove --drop-marts --yes`."
        )
    if ask and not typer.confirm(f"Drop these {len(tables)} in the {warehouse}?"):
        return None
    demo_tables.drop(project, warehouse, tables)
    console.print(f"Dropped {len(tables)} tables and views.")
    return True
