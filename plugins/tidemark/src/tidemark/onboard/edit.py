"""Changes a proposal as a person asks. Pure: `ask` has the questions."""

from __future__ import annotations

from dataclasses import replace
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

from tidemark.errors import UsageError
from tidemark.onboard import methods
from tidemark.onboard.proposal import Method, Proposal
from tidemark.onboard.rules import whole, with_decision
from tidemark.onboard.words import listed

if TYPE_CHECKING:
    from collections.abc import Callable

    from tidemark.onboard.proposal import TableProposal


def hits(proposal: Proposal, pattern: str) -> list[TableProposal]:
    """Return the tables that a pattern matches: TABLE or SCHEMA.TABLE, with `*` and `?`.

    Raises:
        UsageError: it matches none.
    """
    found = [
        each
        for each in proposal.tables
        if fnmatchcase(each.table.name, pattern) or fnmatchcase(str(each.table), pattern)
    ]
    if not found:
        raise UsageError(f"{pattern!r} matches no table.")
    return found


def leave_out(proposal: Proposal, pattern: str) -> Proposal:
    """Leave out the tables that a pattern matches."""
    return change(proposal, pattern, Method.left_out)


def change(proposal: Proposal, pattern: str, method: Method, replication_key: str | None = None) -> Proposal:
    """Give tables another method.

    Raises:
        UsageError: the pattern matches no table, a table can't be read, or the column can't be its replication key.
    """
    found = hits(proposal, pattern)
    for each in found:
        is_closed = each.by_edited_file or not each.model
        if each.method is Method.left_out and is_closed and method is not Method.left_out:
            raise UsageError(f"{each.table} can't be read: {each.reason}.")
        if method is Method.incremental and (why := methods.why_not_incremental(each.table, str(replication_key))):
            raise UsageError(f"{why}.")
        if method is Method.log_based and (why := methods.why_not_log_based(each.table)):
            raise UsageError(f"{why}.")

    def changed(each: TableProposal) -> TableProposal:
        if method is Method.full_table:
            return declined(each)
        return with_decision(each, methods.by_hand(each.table, method, replication_key))

    return _each(proposal, {each.table.stream for each in found}, changed)


def declined(each: TableProposal) -> TableProposal:
    """Return a table's proposal after a no to its replication key: it is read whole."""
    decision = methods.by_hand(each.table, Method.full_table)
    return replace(with_decision(each, decision), declined=each.candidate or each.declined)


def asked(proposal: Proposal) -> list[TableProposal]:
    """Return the tables with an open question."""
    return [each for each in proposal.read if each.question]


def answer(proposal: Proposal, streams: set[str], *, yes: bool) -> Proposal:
    """Answer the open questions of some tables: with yes they are INCREMENTAL, with no they stay FULL_TABLE."""

    def answered(each: TableProposal) -> TableProposal:
        if each.question and yes:
            return with_decision(each, methods.confirm(each.table, each.question))
        return declined(each) if each.question else each

    return _each(proposal, streams, answered)


def confirm_masks(proposal: Proposal, streams: set[str] | None = None) -> Proposal:
    """Confirm the masks of some tables, by default of all.

    Raises:
        UsageError: that would mask only one side of a foreign key.
    """
    masked = {each.table.stream for each in proposal.read if each.masks}
    wanted = masked if streams is None else streams & masked
    by_name = {(each.table.schema, each.table.name): each for each in proposal.read}
    for each in proposal.read:
        for key in each.table.foreign_keys:
            other = by_name.get((key.to_schema, key.to_table))
            sides = {each.table.stream} | ({other.table.stream} if other else set())
            if (
                other
                and any(mask.column in key.columns for mask in each.masks)
                and len(sides & wanted) == 1 < len(sides)
            ):
                raise UsageError(
                    f"{each.table} and {other.table} are joined by a masked column ({listed(key.columns)}): confirm "
                    "the masks of both, or of neither."
                )
    return _each(proposal, wanted, lambda each: replace(each, masks_confirmed=True))


def _each(proposal: Proposal, streams: set[str], edit: Callable[[TableProposal], TableProposal]) -> Proposal:
    tables = tuple(edit(each) if each.table.stream in streams else each for each in proposal.tables)
    return whole(replace(proposal, tables=tables))
