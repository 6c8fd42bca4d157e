"""Carries over what a person decided in an earlier onboarding, so that the same command again proposes the same. Pure.

The manifest has the decisions: replication keys that were confirmed or declined, masks, tables that were
left out, a time zone.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from tidemark.onboard import edit, methods
from tidemark.onboard.proposal import MaskProposal, Method
from tidemark.onboard.rules import whole, with_decision

if TYPE_CHECKING:
    from collections.abc import Collection

    from tidemark.onboard.manifest import KnownTable, Manifest
    from tidemark.onboard.proposal import Proposal, TableProposal


def as_before(
    proposal: Proposal, before: Manifest, *, named: Collection[str] = (), chosen: Collection[str] = ()
) -> Proposal:
    """Return the proposal with the decisions of the last time.

    Args:
        named: streams that this command names, whatever was decided before.
        chosen: streams that this command gives a method, whatever was decided before.
    """
    known = {stream: table for stream, table in before.tables.items() if not table.gone}
    left_out = set(before.left_out) - set(named)

    def decided(each: TableProposal) -> TableProposal:
        stream = each.table.stream
        if each.method is Method.left_out:
            return each
        if stream not in chosen:
            each = _method(each, known.get(stream), before.declined.get(stream))
        return _masks(each, known[stream]) if stream in known else each

    tables = [decided(each) for each in proposal.tables if each.table.stream not in left_out]
    zone = proposal.timestamp_timezone if proposal.timezone_is_chosen else before.timezone
    if zone:
        proposal = replace(proposal, timestamp_timezone=zone, timezone_is_chosen=True)
    return whole(replace(proposal, tables=tuple(tables)))


def with_left_out(proposal: Proposal, before: Manifest) -> Proposal:
    """Return the proposal with the streams that a person left out: by choice, earlier, or by naming others."""
    decided = {each.table.stream for each in proposal.tables if each.reason == methods.BY_CHOICE}
    read = {each.table.stream for each in proposal.read}
    kept = {stream for stream in before.left_out if stream in proposal.all_streams and stream not in read}
    not_meant = set() if before.tables else proposal.all_streams - {each.table.stream for each in proposal.tables}
    return replace(proposal, left_out_by_choice=tuple(sorted(decided | kept | not_meant)))


def _method(each: TableProposal, known: KnownTable | None, declined: str | None) -> TableProposal:
    """Return a table's proposal with the method that a person chose: a replication key, a no to one, or the log."""
    if each.candidate and each.candidate == declined:
        return edit.declined(each)
    if known is not None and known.method == Method.log_based and methods.why_not_log_based(each.table) is None:
        return with_decision(each, methods.by_hand(each.table, Method.log_based))
    if known is None or known.method != Method.incremental or not methods.is_a_persons_word(known.reason):
        return each
    key = str(known.replication_key)
    if key == each.replication_key or methods.why_not_incremental(each.table, key):
        return each
    return with_decision(each, replace(methods.by_hand(each.table, Method.incremental, key), reason=known.reason))


def _masks(each: TableProposal, known: KnownTable) -> TableProposal:
    if known.masks:
        there = {column.name for column in each.table.columns} - each.left_out_columns.keys() - {each.replication_key}
        # what was masked stays masked; a new column that seems to hold personal data is masked with the others
        found = {
            **{mask.column: mask for mask in each.masks},
            **{column: MaskProposal(column, **mask) for column, mask in known.masks.items() if column in there},
        }
        each = replace(each, masks=tuple(found.values()), masks_confirmed=True)
    return each
