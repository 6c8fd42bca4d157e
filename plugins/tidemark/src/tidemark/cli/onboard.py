"""The command that brings a database on board."""

from __future__ import annotations

import sys
import time
from contextlib import nullcontext
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from rich.console import Console

from tidemark.errors import UsageError
from tidemark.project.directory import Project

if TYPE_CHECKING:
    from tidemark.onboard.plan import Choices, Plan
    from tidemark.project.sources import SourceDefinition

console = Console(highlight=False)


def onboard(  # noqa: PLR0913 - the options of a command
    source: Annotated[
        str | None, typer.Argument(help="The source: its tap's name without `tap-`; the only one by default.")
    ] = None,
    *,
    host: Annotated[str | None, typer.Option(help="The address of a new source, which this adds first.")] = None,
    port: Annotated[int | None, typer.Option(min=1, max=65535, help="Its port; 5432 by default.")] = None,
    user: Annotated[str | None, typer.Option(help="The role that reads it; tidemark_reader by default.")] = None,
    database: Annotated[str | None, typer.Option(help="Its database.")] = None,
    tables: Annotated[
        list[str] | None,
        typer.Option(
            help="Only these, and those that are on board: TABLE or SCHEMA.TABLE, with * and ?. A view is read only "
            "if it is named exactly."
        ),
    ] = None,
    schemas: Annotated[list[str] | None, typer.Option(help="Only these schemas; by default, all.")] = None,
    incremental: Annotated[
        list[str] | None,
        typer.Option(metavar="TABLE=COLUMN", help="Read a table by this column, which each update moves: you know it."),
    ] = None,
    log_based: Annotated[
        list[str] | None,
        typer.Option(metavar="TABLE", help="Have a table follow the source's log, also in later runs of this command."),
    ] = None,
    trust_defaults: Annotated[
        bool, typer.Option("--trust-defaults", help="The application sets modification stamps that no trigger sets.")
    ] = False,
    timezone: Annotated[
        str | None, typer.Option(help="The time zone of replication keys without one, such as Europe/Berlin.")
    ] = None,
    masks: Annotated[bool, typer.Option("--masks", help="Confirm all proposed masks of personal data.")] = False,
    sample: Annotated[
        bool, typer.Option("--sample/--no-sample", help="Look at the shape of some values to find personal data.")
    ] = True,
    enable_marts: Annotated[
        bool, typer.Option("--enable-marts", help="Build the drafted dimension and fact, too.")
    ] = False,
    yaml_per: Annotated[
        Literal["folder", "table"] | None,
        typer.Option(help="One YAML file for all staging models, or one beside each; by default, one for all."),
    ] = None,
    remove_gone: Annotated[
        bool, typer.Option("--remove-gone", help="Remove the files of tables that are no longer read.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show the proposal and the diff, and write nothing.")
    ] = False,
    check: Annotated[
        bool, typer.Option("--check", help="Write nothing, and fail if anything would be written: for CI.")
    ] = False,
    run: Annotated[bool, typer.Option("--run/--no-run", help="Load, compare, build and test what was written.")] = True,
    yes: Annotated[bool, typer.Option("--yes", help="Accept the proposal without questions.")] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the proposal and the result as a JSON object.")
    ] = False,
) -> None:
    """Bring a database on board: propose how to read its tables, write that, load, compare, build and test.

    Run it again at any time: it finds what is new or changed in the source, and keeps what you edited.
    """
    from tidemark.onboard.methods import Answers  # noqa: PLC0415
    from tidemark.onboard.plan import Choices  # noqa: PLC0415
    from tidemark.project.file_locks import hold  # noqa: PLC0415

    began = time.monotonic()
    reads_only = dry_run or check
    if not (reads_only or yes or (sys.stdin.isatty() and console.is_terminal and not as_json)):
        raise UsageError("There is no terminal to ask on; add --dry-run to see the proposal, or --yes to accept it.")
    project = Project.find()
    choices = Choices(
        tables=_names(tables),
        schemas=_names(schemas),
        answers=Answers(trust_defaults, dict(map(_choice, incremental or ())), frozenset(_names(log_based))),
        masks=masks,
        timezone=_timezone(timezone),
        sample=sample,
        enable_marts=enable_marts,
        yaml_per=yaml_per,
    )
    connection = {"HOST": host, "PORT": port and str(port), "USER": user, "DATABASE": database}
    lock = hold(project.state_dir / "onboarding.lock", doing="onboarding a source")
    with nullcontext() if reads_only else lock:
        definition = _source(project, source, {end: value for end, value in connection.items() if value}, reads_only)
        shown = not (as_json or check)
        plan = _proposed(project, definition, choices, yes=yes or reads_only, shown=shown)
        if plan is None:
            console.print("Nothing was changed.")
        elif not plan.proposal.read and not plan.before.tables:
            console.print("There is nothing to bring on board.", markup=False)
        elif reads_only:
            _only_show(project, plan, check=check, as_json=as_json, remove_gone=remove_gone)
        else:
            _do(project, definition, plan, began=began, run=run, as_json=as_json, remove_gone=remove_gone)


def _source(
    project: Project,
    name: str | None,
    connection: dict[str, str],
    reads_only: bool,  # noqa: FBT001
) -> SourceDefinition:
    """Return the source, which is added first if it is new and its address is given."""
    from tidemark.cli.source import ask_password  # noqa: PLC0415
    from tidemark.project import new_source, sources  # noqa: PLC0415

    if name is None:
        found = [each for each in sources.active(project) if not each.pair_of]
        if len(found) != 1:
            names = ", ".join(each.name for each in found) or "none"
            raise UsageError(f"Which source? Name one, as in `tidemark onboard NAME`; the sources are {names}.")
        name = found[0].name
    known = [each.name for each in sources.read_with_faults(project)[0]]
    if name in known:
        _refuse_another(project, sources.find(project, name), connection)
    elif not {"HOST", "DATABASE"} <= connection.keys() or reads_only:
        raise UsageError(
            f"There is no source {name!r}; the sources are {', '.join(known) or 'none'}. Add it with `tidemark "
            f"source add {name}`, or give its --host, --user and --database here."
        )
    else:
        new = new_source.NewSource(name, new_source.raw_schema(name), dict(connection))
        new_source.refuse(project, new)
        if password := ask_password(project, f"{new.prefix}_PASSWORD"):
            new.connection["PASSWORD"] = password
        for change in new_source.add(project, new):
            console.print(change, markup=False, soft_wrap=True)
    return sources.find(project, name)


def _refuse_another(project: Project, definition: SourceDefinition, connection: dict[str, str]) -> None:
    """Raise if a source can't be onboarded, or if its database is not the one that the command names."""
    from tidemark.project import database_settings  # noqa: PLC0415

    name = definition.name
    if definition.retired:
        raise UsageError(f"Source {name} was retired on {definition.retired}; `tidemark source add {name}` says more.")
    if definition.pair_of:
        raise UsageError(f"{name} is a part of {definition.pair_of}; run `tidemark onboard {definition.pair_of}`.")
    if connection:
        side = database_settings.source(project, definition)
        there = {"HOST": side.address, "PORT": str(side.port), "USER": side.user, "DATABASE": side.database}
        if other := [end for end, value in connection.items() if there[end] != value]:
            raise UsageError(
                f"Source {name} exists already, with another {' and '.join(map(str.lower, other))}: change "
                f"{' and '.join(f'{definition.prefix}_{end}' for end in other)} in .env, or choose another name."
            )


def _proposed(
    project: Project, definition: SourceDefinition, choices: Choices, *, yes: bool, shown: bool
) -> Plan | None:
    """Return the plan as the person accepted it; None if nothing is to be changed."""
    from dataclasses import replace  # noqa: PLC0415

    from tidemark.local import databases  # noqa: PLC0415
    from tidemark.onboard import ask, plan, show  # noqa: PLC0415
    from tidemark.project import database_settings  # noqa: PLC0415

    quiet = Console(stderr=True, quiet=not (shown and sys.stderr.isatty()))
    if database_settings.source(project, definition).embedded:
        databases.bring_up(project)
    with quiet.status("Connecting …") as status:
        found = plan.make(project, definition, choices, began=lambda what: status.update(f"{what} …"))
    if shown:
        show.show(console, found.proposal)
        for pattern in found.unmatched:
            console.print(f"! {definition.path} selects {pattern}, which the source does not have", markup=False)
    plan.refuse_nothing(found)
    if yes:
        return found
    unmatched = found.unmatched if found.unmatched and ask.take_out(console, definition.path) else ()
    accepted = ask.ask(console, found.proposal)
    return replace(found, proposal=accepted, unmatched=unmatched) if accepted else None


def _only_show(project: Project, plan: Plan, *, check: bool, as_json: bool, remove_gone: bool) -> None:
    from tidemark.onboard import report, show  # noqa: PLC0415
    from tidemark.onboard.apply import apply  # noqa: PLC0415

    applied = apply(project, plan, dry_run=True, remove_gone=remove_gone)
    if as_json:
        sys.stdout.write(show.as_json(plan.proposal, report.as_dict(applied, None)) + "\n")
    else:
        for line in report.changes(applied, diff=not check):
            console.print(line, markup=False, soft_wrap=True)
        console.print("Something would change." if applied.changes else "Nothing would change.")
    if check and applied.changes:
        raise typer.Exit(1)


def _do(  # noqa: PLR0913 - each argument has a name
    project: Project,
    definition: SourceDefinition,
    plan: Plan,
    *,
    began: float,
    run: bool,
    as_json: bool,
    remove_gone: bool,
) -> None:
    from tidemark.onboard import first_run, report, show  # noqa: PLC0415
    from tidemark.onboard.apply import apply  # noqa: PLC0415
    from tidemark.run.display import Display  # noqa: PLC0415

    screen = Console(highlight=False, quiet=as_json)
    display = Display(screen)
    with display.step("Write files") as step:
        applied = apply(project, plan, remove_gone=remove_gone)
        step.say(f"{sum(each.status.value in {'created', 'changed'} for each in applied.written.files)} written")
    for line in report.changes(applied, first=not plan.before.tables):
        screen.print(line, markup=False, soft_wrap=True)
    done = first_run.FirstRun() if run and plan.proposal.read else None
    error = first_run.run(project, definition, display, done) if done else None
    if as_json:
        sys.stdout.write(show.as_json(plan.proposal, report.as_dict(applied, done)) + "\n")
    else:
        report.show(screen, plan, applied, done, seconds=time.monotonic() - began)
    if error:
        raise error


def _timezone(name: str | None) -> str | None:
    from zoneinfo import ZoneInfo, available_timezones  # noqa: PLC0415

    if name is not None and name not in available_timezones():
        raise UsageError(
            f"--timezone is {name!r}; name one as PostgreSQL does, such as UTC or {ZoneInfo('Europe/Berlin')}."
        )
    return name


def _names(options: list[str] | None) -> tuple[str, ...]:
    """Return the names of an option that may be repeated, or hold several names with commas."""
    return tuple(name for option in options or () for name in map(str.strip, option.split(",")) if name)


def _choice(text: str) -> tuple[str, str]:
    table, sign, column = text.rpartition("=")
    if not (table and sign and column):
        raise UsageError(f"--incremental is {text!r}; write TABLE=COLUMN, such as public.orders=updated_at.")
    return table, column
