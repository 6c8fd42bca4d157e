"""Asks a person to accept, edit or narrow a proposal, on a terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.prompt import Confirm, Prompt
from rich.text import Text

from tidemark.errors import UsageError
from tidemark.onboard import edit, show
from tidemark.onboard.proposal import Method, Proposal

if TYPE_CHECKING:
    from rich.console import Console

_ACTIONS = {
    "accept": "take the proposal as it is shown",
    "method": "give a table another method",
    "without": "leave out tables by a pattern",
    "answer": "answer the open questions",
    "masks": "confirm the masks",
    "show": "show it again",
    "quit": "end, and change nothing",
}


def ask(console: Console, proposal: Proposal) -> Proposal | None:
    """Return the proposal as the person accepted it; None if nothing is to be changed."""
    try:
        return _edited(console, proposal)
    except EOFError:
        # Ctrl-D
        console.print()
        return None


def take_out(console: Console, path: str) -> bool:
    """Ask whether selections that match no table are taken out of the tap's file."""
    return Confirm.ask(f"Take them out of {path}?", console=console, default=True)


def _edited(console: Console, proposal: Proposal) -> Proposal | None:
    while True:
        console.print(Text("\n".join(f"  {name:<8} {what}" for name, what in _ACTIONS.items())))
        action = Prompt.ask("What now?", console=console, choices=list(_ACTIONS), default="accept")
        try:
            match action:
                case "accept":
                    return proposal
                case "quit":
                    return None
                case "method":
                    proposal = _method(console, proposal)
                case "without":
                    proposal = edit.leave_out(
                        proposal, Prompt.ask("Tables (TABLE or SCHEMA.TABLE, * and ?)", console=console)
                    )
                case "answer":
                    proposal = _answer(console, proposal)
                case "masks":
                    proposal = _masks(console, proposal)
                case _:
                    show.show(console, proposal)
                    continue
        except UsageError as error:
            console.print(Text(str(error), "red"))
            continue
        console.print(Text(show.summary(proposal), "bold"))


def _method(console: Console, proposal: Proposal) -> Proposal:
    pattern = Prompt.ask("Tables (TABLE or SCHEMA.TABLE, * and ?)", console=console)
    found = edit.hits(proposal, pattern)
    choices = [each.value for each in Method]
    method = Method(Prompt.ask("Method", console=console, choices=choices, default=found[0].method.value))
    key = None
    if method is Method.incremental:
        key = Prompt.ask("Replication key", console=console, default=found[0].candidate or "")
    return edit.change(proposal, pattern, method, key)


def _answer(console: Console, proposal: Proposal) -> Proposal:
    questions = edit.asked(proposal)
    if not questions:
        raise UsageError("No question is open.")
    for each in questions:
        console.print(Text(f"  {each.table}: {each.question.text if each.question else ''} ({each.cost})"))
    # insert-only is an answer for one table: a wrong yes misses every update
    common = {each.table.stream for each in questions if each.question and not each.question.insert_only}
    if len(common) > 1:
        how = Prompt.ask(
            f"{len(common)} modification stamps: answer for all, or for each table?",
            console=console,
            choices=["yes to all", "no to all", "each"],
            default="each",
        )
        if how != "each":
            proposal = edit.answer(proposal, common, yes=how == "yes to all")
    for each in edit.asked(proposal):
        assert each.question
        yes = Confirm.ask(f"{each.table}: {each.question.text}", console=console, default=False)
        proposal = edit.answer(proposal, {each.table.stream}, yes=yes)
    return proposal


def _masks(console: Console, proposal: Proposal) -> Proposal:
    masked = [each for each in proposal.read if each.masks and not each.masks_confirmed]
    if not masked:
        raise UsageError("No mask is proposed, or all are confirmed.")
    for each in masked:
        for mask in each.masks:
            console.print(Text(f"  {each.table}.{mask.column}: {mask.mask} ({mask.why})"))
    if Confirm.ask("Confirm all of them?", console=console, default=False):
        return edit.confirm_masks(proposal)
    pattern = Prompt.ask("Confirm those of which tables (* and ?; empty for none)", console=console, default="")
    return (
        edit.confirm_masks(proposal, {each.table.stream for each in edit.hits(proposal, pattern)})
        if pattern
        else proposal
    )
