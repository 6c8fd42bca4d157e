"""Commands that look at both databases: status, check, reconcile, trace."""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from typing import Annotated

import typer
from rich.console import Console

from tidemark.errors import Interruption, RowsDifferError, TidemarkError, UsageError
from tidemark.inspect import status as status_
from tidemark.project import sources
from tidemark.project.directory import Project

console = Console(highlight=False)
SourceOption = Annotated[str | None, typer.Option("--source", metavar="NAME", help="Only this source; all by default.")]


def status(
    source: SourceOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object per database and stream.")] = False,  # noqa: FBT002
    watch: Annotated[  # noqa: FBT002
        bool,
        typer.Option(
            "--watch", help="Show streams, models and alerts that would fire on the whole screen, until Ctrl-C."
        ),
    ] = False,
) -> None:
    """Show all databases and whether they answer, and the latest run of each stream."""
    project = Project.find()
    if watch:
        if as_json or not console.is_terminal:
            raise UsageError("--watch needs a terminal, and no --json; `tidemark status --json` prints the state once.")
        from tidemark.metrics import watch as watch_  # noqa: PLC0415

        # Ctrl-C is the normal end of this command
        with suppress(Interruption):
            watch_.watch(console, project)
        return
    status_.show_servers(console, project, source=source, as_json=as_json)
    status_.show_runs(console, project, source=source, as_json=as_json)


def check(
    source: SourceOption = None,
    files: Annotated[  # noqa: FBT002
        bool,
        typer.Option("--files", help="Only look at the project's files, by rules for any project; ask no database."),
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the findings as a JSON list.")] = False,  # noqa: FBT002
) -> None:
    """List what would stop or spoil a run, in all databases and the project's YAML, with the SQL that fixes it."""
    from tidemark.inspect.check import files as of_files  # noqa: PLC0415
    from tidemark.inspect.check import show  # noqa: PLC0415
    from tidemark.inspect.check.finding import Level  # noqa: PLC0415
    from tidemark.inspect.check.run import check as run  # noqa: PLC0415

    if files and source:
        raise UsageError("--files looks at the files of all sources, so it needs no --source: omit one of them.")
    project = Project.find()
    findings = of_files.check(project) if files else run(project, source or os.environ.get(sources.ONLY))
    if as_json:
        sys.stdout.write(show.as_json(findings) + "\n")
    else:
        show.show(console, findings)
    if errors := sum(finding.level is Level.error for finding in findings):
        what = "An error" if errors == 1 else f"{errors} errors"
        raise TidemarkError(f"{what} above would stop or spoil a run; correct that, then run `tidemark check` again.")


def reconcile(  # noqa: PLR0913 - the command's options
    stream: Annotated[
        list[str] | None,
        typer.Argument(help="Streams such as public-orders or crm/public-orders; by default, all selected ones."),
    ] = None,
    *,
    source: SourceOption = None,
    repair: Annotated[
        bool, typer.Option("--repair", help="Load missing and different rows, and mark extra rows as deleted.")
    ] = False,
    since: Annotated[str | None, typer.Option(help="Compare only rows from this replication key value on.")] = None,
    allow_deletes: Annotated[
        str, typer.Option(metavar="PERCENT", help="How much of a stream a repair may mark as deleted.")
    ] = "5%",
    as_json: Annotated[bool, typer.Option("--json", help="Print the results as a JSON list.")] = False,
) -> None:
    """Compare sources and warehouse row by row, and say which rows differ; with --repair, make them equal."""
    from tidemark.inspect.reconcile import show  # noqa: PLC0415
    from tidemark.inspect.reconcile.run import ReconcileOptions, names  # noqa: PLC0415
    from tidemark.inspect.reconcile.run import reconcile as run  # noqa: PLC0415

    source = source or os.environ.get(sources.ONLY)
    options = ReconcileOptions(tuple(stream or ()), source, repair, since, percent(allow_deletes))
    with console.status("Comparing …") as status:
        results = run(
            Project.find(),
            options,
            began=lambda name: status.update(f"Comparing {name} …"),
            warn=lambda text: typer.echo(f"warning: {text}", err=True),
        )
    if as_json:
        sys.stdout.write(show.as_json(results) + "\n")
    else:
        show.show(console, results)
    if failed := [result.name for result in results if result.error]:
        raise TidemarkError(f"{', '.join(failed)} could not be {'repaired' if repair else 'compared'}; see above.")
    if (different := names(results)) and repair:
        raise RowsDifferError(f"{different} could not be repaired; see above.")
    if different:
        raise RowsDifferError(f"Source and warehouse differ; repair them: `tidemark reconcile --repair {different}`.")


def trace(
    stream: Annotated[str, typer.Argument(help="A stream such as public-orders or crm/public-orders.")],
    key: Annotated[list[str], typer.Argument(help="The row's key, with a value for each of its columns.")],
    source: Annotated[str | None, typer.Option(metavar="NAME", help="The stream's source.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print whole rows as a JSON list.")] = False,  # noqa: FBT002
) -> None:
    """Follow one row through the source, the raw table, the run that loaded it, and the models."""
    from tidemark.inspect import trace as tracing  # noqa: PLC0415

    places = tracing.trace(Project.find(), stream, key, source=source)
    if as_json:
        sys.stdout.write(tracing.as_json(places) + "\n")
    else:
        tracing.show(console, places)


def percent(text: str) -> float:
    """Return a percentage that the user wrote, such as 10%.

    Raises:
        UsageError: it is none.
    """
    try:
        value = float(text.removesuffix("%"))
    except ValueError:
        value = -1
    if not 0 <= value <= 100:  # noqa: PLR2004 - percent
        raise UsageError(f"--allow-deletes is {text!r}; write a percentage from 0 to 100, such as 10%.")
    return value
