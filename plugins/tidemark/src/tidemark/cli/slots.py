"""The commands `tidemark slots …`."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

from tidemark.cli.inspect import percent
from tidemark.errors import SlotWalError, TidemarkError, UsageError
from tidemark.inspect.tables import print_whole
from tidemark.project import sources
from tidemark.project.directory import Project

if TYPE_CHECKING:
    from tidemark.inspect.slots import SlotFacts
    from tidemark.project.sources import SourceDefinition

_HEADINGS = (
    *("source", "slot", "used by", "WAL kept", "at most", "read again"),
    *("may grow by", "state", "confirmed", "warehouse has"),
)
slots_app = typer.Typer(
    help="Make, list, advance and drop the replication slots of LOG_BASED streams.", no_args_is_help=True
)
console = Console(highlight=False)
SourceArgument = Annotated[str | None, typer.Argument(help="The source; all by default.")]


@slots_app.command("list")
def slots_list(
    source: SourceArgument = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print a JSON list.")] = False,  # noqa: FBT002
) -> None:
    """List the slots, with the WAL that each source keeps for them. Fail if it is more than max_slot_wal_mb for one."""
    from tidemark.inspect import slots  # noqa: PLC0415

    project = Project.find()
    found = [fact for each in sources.chosen(project, source) for fact in slots.facts(project, each)]
    if as_json:
        sys.stdout.write(json.dumps([asdict(fact) for fact in found], indent=2) + "\n")
    elif not found:
        _say("There are no slots; `tidemark slots create` makes those that LOG_BASED streams need.")
    else:
        print_whole(console, _table(found))
    if over := [fact.slot for fact in found if fact.is_over]:
        raise SlotWalError(f"The source keeps more WAL than max_slot_wal_mb allows for {', '.join(over)}.")


def _table(found: list[SlotFacts]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in _HEADINGS:
        table.add_column(heading, no_wrap=True)
    for fact in found:
        used = f"pid {fact.active_pid}" if fact.active_pid else "nobody now" if fact.is_ours else "nobody: left behind?"
        kept = _size(fact.retained_bytes) + (" (over)" if fact.is_over else "")
        table.add_row(
            *(fact.source, fact.slot, used, kept, _size(fact.budget_bytes, "no limit")),
            *(_size(fact.read_again_bytes), _size(fact.safe_bytes, "no limit")),
            *(fact.wal_status or "", fact.confirmed or "", fact.warehouse or ""),
        )
    return table


@slots_app.command("create")
def slots_create(
    source: SourceArgument = None,
    as_sql: Annotated[  # noqa: FBT002
        bool, typer.Option("--sql", help="Print the statements for an administrator, and run nothing.")
    ] = False,
) -> None:
    """Make the publication and the slot of the selected LOG_BASED streams, or bring the publication up to date."""
    from tidemark.inspect import slots  # noqa: PLC0415

    project = Project.find()
    for each in sources.chosen(project, source):
        done = [statement for statement, _ in slots.statements(project, each)] if as_sql else None
        if done is not None:
            sys.stdout.write("".join(f"{statement}\n" for statement in done))
            continue
        some = False
        for line in slots.create(project, each):
            _say(line)
            some = True
        if not some:
            _say(f"Source {each.name} has all that its LOG_BASED streams need.")


@slots_app.command("drop")
def slots_drop(
    slot: Annotated[str, typer.Argument(help="The slot.")],
    source: Annotated[str | None, typer.Option("--source", metavar="NAME", help="Its source.")] = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,  # noqa: FBT002
) -> None:
    """Drop a slot and its publication: the source keeps no more WAL for it. `slots repair` brings its streams back."""
    from tidemark.inspect import slots  # noqa: PLC0415

    project = Project.find()
    of = _source_of(project, slot, source)
    if not yes and not (sys.stdin.isatty() and typer.confirm(f"Drop {slot} of source {of.name}?")):
        raise UsageError("Nothing was dropped; --yes drops without asking.")
    left = slots.drop(project, of, slot)
    _say(f"Slot {slot} was dropped.")
    if left:
        _say(f"Its publication stays, which costs nothing; an administrator may drop it: {left}")


@slots_app.command("advance")
def slots_advance(
    slot: Annotated[str, typer.Argument(help="The slot.")],
    to: Annotated[str | None, typer.Option("--to", metavar="LSN", help="Up to here; by default, to now.")] = None,
    source: Annotated[str | None, typer.Option("--source", metavar="NAME", help="Its source.")] = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,  # noqa: FBT002
) -> None:
    """Give up changes that no run has read, so that the source may forget its WAL. Then repair the streams."""
    from tidemark.inspect import slot_advance  # noqa: PLC0415

    project = Project.find()
    of = _source_of(project, slot, source)
    planned = slot_advance.plan(project, of, slot, to)
    if planned.streams:
        _say(
            f"The warehouse lacks the changes in {_size(planned.lost_bytes)} of WAL before {planned.to}, and will not "
            f"get them from the log. These streams must be repaired then: {', '.join(planned.streams)}. Until "
            f"`tidemark slots repair` has done that, runs refuse to follow the slot."
        )
    else:
        _say(f"The warehouse has all changes of its streams before {planned.to}: no stream needs a repair.")
    if not yes and not (sys.stdin.isatty() and typer.confirm(f"Advance {slot} of source {of.name} to {planned.to}?")):
        raise UsageError("Nothing was advanced; --yes advances without asking.")
    _say(f"Slot {slot} is at {slot_advance.advance(project, of, planned)}.")


@slots_app.command("enforce")
def slots_enforce(source: SourceArgument = None) -> None:
    """Fail if a source keeps more WAL than max_slot_wal_mb; drop the slot if max_slot_wal_action says so."""
    from tidemark.inspect import slot_budget  # noqa: PLC0415

    project = Project.find()
    if over := [line for each in sources.chosen(project, source) for line in slot_budget.enforce(project, each)]:
        text = ". ".join(f"{line[0].upper()}{line[1:]}" for line in over)
        raise SlotWalError(f"{text}.")
    _say("No source keeps more WAL than max_slot_wal_mb allows.")


def _source_of(project: Project, slot: str, source: str | None) -> SourceDefinition:
    """Return the source that has a slot.

    Raises:
        UsageError: no source has it, or several do.
    """
    from tidemark.inspect import slots  # noqa: PLC0415

    among = sources.chosen(project, source)
    of = [each for each in among if any(fact.slot == slot for fact in slots.facts(project, each))]
    if len(of) != 1:
        where = "no source has" if not of else f"{' and '.join(each.name for each in of)} have"
        raise UsageError(
            f"There is no one slot of that name: {where} {slot}. `tidemark slots list` shows all; name one by --source."
        )
    return of[0]


@slots_app.command("repair")
def slots_repair(
    stream: Annotated[list[str] | None, typer.Argument(help="LOG_BASED streams; by default, all that need it.")] = None,
    source: Annotated[str | None, typer.Option("--source", metavar="NAME", help="Only this source.")] = None,
    allow_deletes: Annotated[
        str, typer.Option(metavar="PERCENT", help="How much of a stream may be marked as deleted.")
    ] = "5%",
) -> None:
    """Bring streams back to their slot by comparing them with the source; make the slot again if it was lost."""
    from tidemark.inspect import slot_repair  # noqa: PLC0415
    from tidemark.inspect.reconcile import show  # noqa: PLC0415

    options = slot_repair.RepairOptions(tuple(stream or ()), source, percent(allow_deletes))
    done: list[str] = []

    def say(text: str) -> None:
        done.append(text)
        _say(text)

    with console.status("Comparing …") as status:
        results = slot_repair.repair(
            Project.find(),
            options,
            began=lambda name: status.update(f"Comparing {name} …"),
            say=say,
            warn=lambda text: typer.echo(f"warning: {text}", err=True),
        )
    if not results and not done:
        _say("All LOG_BASED streams follow their slots, and nothing tells that their rows may differ.")
        return
    show.show(console, results)
    if failed := [result.name for result in results if result.error]:
        raise TidemarkError(f"{', '.join(failed)} could not be repaired; see above.")
    _say("The next run goes on from there.")


def _size(count: int | None, none: str = "") -> str:
    return none if count is None else f"{count / 2**20:,.1f} MB"


def _say(text: str) -> None:
    console.print(text, markup=False, soft_wrap=True)
