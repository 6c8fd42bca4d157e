"""The command that brings a database on board."""

from __future__ import annotations

import sys
from typing import Annotated

import typer
from rich.console import Console

from tidemark.errors import UsageError
from tidemark.project.directory import Project

console = Console(highlight=False)


def onboard(  # noqa: PLR0913 - the options of a command
    source: Annotated[str, typer.Argument(help="The source: its tap's name without `tap-`.")] = "postgres",
    *,
    tables: Annotated[
        list[str] | None,
        typer.Option(
            help="Only these: TABLE or SCHEMA.TABLE, with * and ?. A view is read only if it is named exactly."
        ),
    ] = None,
    schemas: Annotated[list[str] | None, typer.Option(help="Only these schemas; by default, all.")] = None,
    incremental: Annotated[
        list[str] | None,
        typer.Option(metavar="TABLE=COLUMN", help="Read a table by this column, which each update moves: you know it."),
    ] = None,
    trust_defaults: Annotated[
        bool, typer.Option("--trust-defaults", help="The application sets modification stamps that no trigger sets.")
    ] = False,
    masks: Annotated[bool, typer.Option("--masks", help="Confirm all proposed masks of personal data.")] = False,
    sample: Annotated[
        bool, typer.Option("--sample/--no-sample", help="Look at the shape of some values to find personal data.")
    ] = True,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show the proposal, and write nothing.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Accept the proposal without questions.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the proposal as a JSON object.")] = False,
) -> None:
    """Propose how to read a database's tables, each with its reason, from its catalogs and statistics."""
    from tidemark.onboard import ask, edit, show  # noqa: PLC0415
    from tidemark.onboard.methods import Answers  # noqa: PLC0415
    from tidemark.onboard.names import FIRST  # noqa: PLC0415
    from tidemark.onboard.propose import Wanted  # noqa: PLC0415
    from tidemark.onboard.survey import survey  # noqa: PLC0415
    from tidemark.project import database_settings  # noqa: PLC0415

    if source != FIRST:
        raise UsageError(f"There is no source {source!r}; the project's source is {FIRST}.")
    if not (dry_run or yes or (sys.stdin.isatty() and console.is_terminal and not as_json)):
        raise UsageError("There is no terminal to ask on; add --dry-run to see the proposal, or --yes to accept it.")
    project = Project.find()
    side, warehouse = database_settings.read(project)
    wanted = Wanted(
        source,
        _names(tables),
        Answers(trust_defaults, dict(map(_choice, incremental or ()))),
        default_raw_schema=warehouse.default_target_schema,
    )
    quiet = Console(stderr=True, quiet=as_json or not sys.stderr.isatty())
    with quiet.status("Connecting …") as status:
        proposal = survey(
            side,
            wanted,
            schemas=_names(schemas),
            look_at_values=sample,
            began=lambda what: status.update(f"{what} …"),
        )
    if masks:
        proposal = edit.confirm_masks(proposal)
    if as_json:
        sys.stdout.write(show.as_json(proposal) + "\n")
    else:
        show.show(console, proposal)
    if dry_run:
        return
    accepted = proposal if yes else ask.ask(console, proposal)
    if accepted is None:
        console.print("Nothing was changed.")
    else:
        raise UsageError("Nothing was written: this release only proposes. `--dry-run --json` prints the proposal.")


def _names(options: list[str] | None) -> tuple[str, ...]:
    """Return the names of an option that may be repeated, or hold several names with commas."""
    return tuple(name for option in options or () for name in map(str.strip, option.split(",")) if name)


def _choice(text: str) -> tuple[str, str]:
    table, sign, column = text.rpartition("=")
    if not (table and sign and column):
        raise UsageError(f"--incremental is {text!r}; write TABLE=COLUMN, such as public.orders=updated_at.")
    return table, column
