"""Prints a proposal: a table for people, JSON for programs."""

from __future__ import annotations

import json
from collections import Counter
from typing import TYPE_CHECKING, Any

from rich.table import Table
from rich.text import Text

from tidemark.onboard import sql_files
from tidemark.onboard.proposal import Method

if TYPE_CHECKING:
    from collections.abc import Mapping

    from rich.console import Console

    from tidemark.onboard.proposal import Proposal, TableProposal

_STYLES = {
    Method.incremental: "green",
    Method.full_table: "cyan",
    Method.log_based: "magenta",
    Method.left_out: "dim",
}
# warnings that many tables share are said once below the table
_SHARED = 3


def as_json(proposal: Proposal, more: Mapping[str, Any]) -> str:
    """Return a proposal as a JSON object, with more members."""
    return json.dumps(
        {
            "source": proposal.source,
            "raw_schema": proposal.raw_schema,
            "timestamp_timezone": proposal.timestamp_timezone,
            "pairs": proposal.pairs,
            "warnings": list(proposal.warnings),
            "tables": [_as_dict(each) for each in proposal.tables],
            "missing_indexes": sql_files.missing_indexes(proposal),
            "missing_grants": sql_files.missing_grants(proposal),
            **more,
        },
        indent=2,
    )


def _as_dict(proposed: TableProposal) -> dict[str, Any]:
    table = proposed.table
    return {
        "schema": table.schema,
        "table": table.name,
        "stream": table.stream,
        "kind": table.kind,
        "rows": round(table.rows),
        "bytes": table.bytes,
        "key": list(table.key),
        "method": proposed.method.value,
        "replication_key": proposed.replication_key,
        "reason": proposed.reason,
        "cost": proposed.cost,
        "question": proposed.question.text if proposed.question else None,
        "left_out_columns": proposed.left_out_columns,
        "offered_columns": proposed.offered_columns,
        "masks": [{"column": mask.column, "mask": mask.mask, "why": mask.why} for mask in proposed.masks],
        "masks_confirmed": proposed.masks_confirmed,
        "raw_name": proposed.raw_name,
        "raw_schema": proposed.raw_schema,
        "pair": proposed.pair,
        "model": proposed.model,
        "warnings": list(proposed.warnings),
    }


def show(console: Console, proposal: Proposal) -> None:
    """Print what is proposed for each table, what is left out, and a summary."""
    shared = _shared(proposal)
    table = Table(box=None, pad_edge=False, padding=(0, 1), expand=False)
    for title in ("table", "method", "reason", "a run reads"):
        table.add_column(title, overflow="fold")
    for each in proposal.read:
        method = Text(each.method.value, _STYLES[each.method])
        if each.replication_key:
            method.append(f"\nby {each.replication_key}")
        table.add_row(Text(str(each.table), "bold"), method, _reason(each, shared), each.cost)
    if proposal.read:
        console.print(table)
    left_out = [each for each in proposal.tables if each.method is Method.left_out]
    if left_out:
        console.print(Text(f"\nLeft out ({len(left_out)})", "bold"))
        for each in left_out:
            console.print(Text.assemble("  ", (str(each.table), "dim"), f": {each.reason}"))
    said = [*proposal.warnings, *(f"{warning} ({count} tables)" for warning, count in shared.items())]
    for warning in said:
        console.print(Text.assemble(("! ", "yellow"), warning))
    for title, text in (
        ("Missing rights, to be given in the source", sql_files.missing_grants(proposal)),
        ("Missing indexes, to be made in the source", sql_files.missing_indexes(proposal)),
    ):
        if text:
            console.print(Text(f"\n{title}", "bold"))
            # not wrapped, so that a statement can be copied as one line
            console.print(Text(text.rstrip()), soft_wrap=True)
    console.print(Text(f"\n{summary(proposal)}", "bold"))


def summary(proposal: Proposal) -> str:
    """Return a proposal in one or two sentences."""
    methods = Counter(each.method for each in proposal.tables)
    counts = [f"{methods[method]} {method.value}" for method in Method if methods[method]]
    masks = sum(len(each.masks) for each in proposal.read if not each.masks_confirmed)
    questions = sum(each.question is not None for each in proposal.read)
    more = [
        f"{masks} mask{'s' * (masks != 1)} proposed, off until confirmed" if masks else "",
        f"{questions} question{'s' * (questions != 1)} open" if questions else "",
        f"timestamp_timezone {proposal.timestamp_timezone}" if proposal.timestamp_timezone else "",
    ]
    raw = " and ".join([proposal.raw_schema, *proposal.pairs.values()])
    tables = f"{len(proposal.tables)} table{'s' * (len(proposal.tables) != 1)}"
    return "; ".join([f"{proposal.source} into {raw}: {tables}: {', '.join(counts)}", *filter(None, more)]) + "."


def _reason(proposed: TableProposal, shared: Counter[str]) -> Text:
    text = Text(proposed.reason)
    if proposed.question:
        text.append(f"\n? {proposed.question.text}", "magenta")
    for name, why in proposed.left_out_columns.items():
        text.append(f"\n- {name} is left out: {why}", "dim")
    for mask in proposed.masks:
        state = "masked" if proposed.masks_confirmed else "mask proposed"
        text.append(f"\n* {mask.column}: {state}: {mask.mask} ({mask.why})", "blue")
    for warning in proposed.warnings:
        if warning not in shared:
            text.append(f"\n! {warning}", "yellow")
    return text


def _shared(proposal: Proposal) -> Counter[str]:
    """Return the warnings that many tables share, with the number of tables."""
    counts = Counter(warning for each in proposal.read for warning in each.warnings)
    return Counter({warning: count for warning, count in counts.items() if count >= _SHARED})
