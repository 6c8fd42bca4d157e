"""The commands `tidemark state …`."""

from __future__ import annotations

import sys
from typing import Annotated

import typer
from rich.console import Console

from tidemark.errors import TidemarkError, UsageError
from tidemark.project import sources
from tidemark.project.directory import Project

state_app = typer.Typer(
    help="Compare how far streams were read with what the warehouse has, or have them read again.", no_args_is_help=True
)
console = Console(highlight=False)
SourceOption = Annotated[str | None, typer.Option("--source", metavar="NAME", help="Only this source; all by default.")]


@state_app.command("check")
def state_check(
    source: SourceOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print a JSON list.")] = False,  # noqa: FBT002
) -> None:
    """Compare Meltano's bookmarks with what the warehouse holds. A bookmark that is ahead would skip rows."""
    from tidemark.inspect.state import show  # noqa: PLC0415
    from tidemark.inspect.state.comparison import Status, compare  # noqa: PLC0415

    project = Project.find()
    found = [compared for each in sources.chosen(project, source) for compared in compare(project, each)]
    if as_json:
        sys.stdout.write(show.as_json(found) + "\n")
    else:
        show.show(console, found)
    if ahead := [compared.name for compared in found if compared.fit is Status.ahead]:
        raise TidemarkError(
            f"State is ahead of the warehouse: rows of {', '.join(ahead)} would be missed; fix it with "
            "`tidemark state rewind`, then run the pipeline."
        )
    if elsewhere := [compared for compared in found if compared.fit is Status.elsewhere]:
        names = ", ".join(compared.name for compared in elsewhere)
        prefixes = " and ".join(dict.fromkeys(compared.source.prefix for compared in elsewhere))
        raise TidemarkError(
            f"The warehouse has {names} from another database; point {prefixes}_HOST and _DATABASE at "
            "that one, or load this one into a warehouse of its own (TARGET_POSTGRES_DATABASE)."
        )


@state_app.command("rewind")
def state_rewind(
    stream: Annotated[
        list[str] | None,
        typer.Argument(
            help="Streams such as public-orders or crm/public-orders; by default, all that are ahead of the warehouse."
        ),
    ] = None,
    source: SourceOption = None,
    to: Annotated[
        str | None,
        typer.Option(help="Read again from this bookmark on, or from the `beginning`; this duplicates no rows."),
    ] = None,
) -> None:
    """Set Meltano's bookmarks back to what the warehouse holds, so that the next run reads what it lacks."""
    from tidemark.inspect.state.rewind import rewind  # noqa: PLC0415

    if to is not None and not stream:
        raise UsageError("--to needs the names of streams: `tidemark state rewind STREAM … --to …`.")
    done = rewind(Project.find(), stream or [], to=to, source=source)
    for each in done:
        before, after = (value or "the beginning" for value in (each.before, each.after))
        console.print(f"{each.stream}: {before} → {after}", soft_wrap=True)
    if not done:
        console.print("No state is ahead of the warehouse; nothing was changed.")
