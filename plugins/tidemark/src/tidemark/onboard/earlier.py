"""Carries over what a person decided in an earlier onboarding, so that the same command again proposes the same. Pure.

The manifest has the decisions: replication keys that were confirmed, masks, tables that were left out, a time zone.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from tidemark.onboard import methods
from tidemark.onboard.proposal import MaskProposal, Method
from tidemark.onboard.propose import whole, with_decision

if TYPE_CHECKING:
    from collections.abc import Collection

    from tidemark.onboard.manifest import KnownTable, Manifest
    from tidemark.onboard.proposal import Proposal, TableProposal


def as_before(proposal: Proposal, before: Manifest, *, named: Collection[str] = ()) -> Proposal:
    """Return the proposal with the decisions of the last time.

    Args:
        named: streams that this command names, whatever was decided before.
    """
    known = {stream: table for stream, table in before.tables.items() if not table.gone}
    left_out = set(before.left_out) - set(named)
    tables = []
    for each in proposal.tables:
        if each.table.stream in left_out:
            continue
        is_known = each.method is not Method.left_out and each.table.stream in known
        tables.append(_like(each, known[each.table.stream]) if is_known else each)
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


def _like(each: TableProposal, known: KnownTable) -> TableProposal:
    key = known.replication_key
    by_key = known.method == Method.incremental and key is not None and each.question is not None
    if by_key and methods.why_not_incremental(each.table, str(key)) is None:
        decision = methods.by_hand(each.table, Method.incremental, key)
        each = with_decision(each, replace(decision, reason=known.reason or decision.reason))
    if known.masks:
        there = {column.name for column in each.table.columns} - each.left_out_columns.keys() - {each.replication_key}
        # what was masked stays masked; a new column that seems to hold personal data is masked with the others
        found = {
            **{mask.column: mask for mask in each.masks},
            **{column: MaskProposal(column, **mask) for column, mask in known.masks.items() if column in there},
        }
        each = replace(each, masks=tuple(found.values()), masks_confirmed=True)
    return each
