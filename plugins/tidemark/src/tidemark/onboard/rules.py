"""Puts the rules together into a proposal for a source. Pure, so the same facts give the same proposal."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

from tidemark.errors import UsageError
from tidemark.inspect import foreign_keys
from tidemark.onboard import columns, methods, names, personal_data
from tidemark.onboard.meltano_files import MeltanoSource
from tidemark.onboard.methods import Answers
from tidemark.onboard.proposal import Method, Proposal, TableProposal
from tidemark.onboard.stamps import has_zone, is_timestamp
from tidemark.onboard.words import listed

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

    from tidemark.onboard.catalog import SourceCatalog
    from tidemark.onboard.methods import Decision
    from tidemark.onboard.names import TableNames
    from tidemark.onboard.proposal import MaskProposal
    from tidemark.onboard.source_tables import SourceTable
    from tidemark.onboard.zones import ZoneHint

_DELETES = (
    "an INCREMENTAL table does not see rows that the source deletes: `tidemark reconcile --repair` marks them; "
    "tables that are read whole need nothing"
)
_NO_ZONE = (
    "the replication key has no time zone, so each run reads the last 12 hours again: set timestamp_timezone if all "
    "writers use the same zone"
)


@dataclass(frozen=True)
class Facts:
    """What was read from the source.

    Attributes:
        shares: by stream and column, the share of sampled values with each shape of personal data.
        zones: hints by stream, for replication keys without a time zone.
    """

    catalog: SourceCatalog
    shares: Mapping[str, Mapping[str, Mapping[str, float]]] = field(default_factory=dict)
    zones: Mapping[str, ZoneHint] = field(default_factory=dict)


@dataclass(frozen=True)
class Wanted:
    """What to propose for.

    Attributes:
        patterns: tables as TABLE or SCHEMA.TABLE, with `*` and `?`; empty for all.
        raw_schema: the schema of the source's own target; its usual one by default.
        taken_models: names of models of other sources.
        kept: names that an earlier onboarding gave, by stream.
        also: streams that are wanted beside those of the patterns, such as those of an earlier onboarding.
    """

    source: str
    patterns: tuple[str, ...] = ()
    answers: Answers = field(default_factory=Answers)
    raw_schema: str | None = None
    taken_models: frozenset[str] = frozenset()
    kept: Mapping[str, TableNames] = field(default_factory=dict)
    also: frozenset[str] = frozenset()


def matching(tables: Iterable[SourceTable], patterns: Sequence[str], also: Collection[str] = ()) -> list[SourceTable]:
    """Return the tables that any of the patterns matches, and the streams in `also`.

    Raises:
        UsageError: a pattern matches no table.
    """
    every = list(tables)
    if not patterns:
        return every
    found = set(also)
    for pattern in patterns:
        hits = [table for table in every if fnmatchcase(table.name, pattern) or fnmatchcase(str(table), pattern)]
        if not hits:
            near = listed(sorted(str(table) for table in every)) or "none"
            raise UsageError(f"--tables: {pattern!r} matches no table; the source's tables are {near}.")
        found |= {table.stream for table in hits}
    return [table for table in every if table.stream in found]


def propose(facts: Facts, wanted: Wanted) -> Proposal:
    """Propose how to read each table.

    Raises:
        UsageError: a pattern or an explicit choice names no table, or a column that can't be a replication key.
    """
    tables = matching(facts.catalog.tables, wanted.patterns, wanted.also)
    exactly = {each for each in wanted.patterns if not set(each) & set("*?[")}
    named = {table.stream for table in tables if exactly & {table.name, str(table)} or table.stream in wanted.also}
    answers = replace(
        wanted.answers,
        named=wanted.answers.named | named,
        incremental=chosen(tables, wanted.answers),
        log_based=following(tables, wanted.answers),
    )
    role, has_log = facts.catalog.role, facts.catalog.has_log
    proposed = [_table(table, methods.decide(table, answers, role, has_log=has_log)) for table in tables]
    named_tables = names.names(
        wanted.source,
        [each.table for each in proposed if each.method is not Method.left_out],
        own_raw_schema=wanted.raw_schema,
        taken=wanted.taken_models,
        kept=wanted.kept,
    )
    proposed = [
        _without(each, named_tables.ambiguous[str(each.table)]) if str(each.table) in named_tables.ambiguous else each
        for each in proposed
    ]
    masks = _masks(proposed, facts, facts.catalog.tables)
    done = []
    for each in proposed:
        if each.method is Method.left_out:
            done.append(each)
            continue
        own = named_tables.tables[each.table.stream]
        done.append(
            replace(
                each,
                masks=masks.get(each.table.stream, ()),
                raw_name=each.table.name,
                model=own.model,
                pair=own.pair,
                raw_schema=own.raw_schema if own.pair else "",
                warnings=(*each.warnings, *_more(each, facts.zones.get(each.table.stream))),
            )
        )
    return whole(
        Proposal(
            wanted.source,
            named_tables.raw_schema,
            tuple(sorted(done, key=lambda each: (each.table.schema, each.table.name))),
            (*facts.catalog.undescribed, *named_tables.warnings),
            role=role,
            all_streams=frozenset(table.stream for table in facts.catalog.tables),
        )
    )


def whole(proposal: Proposal) -> Proposal:
    """Return the proposal with what follows from all its tables: the zone of its keys, and the warnings about all."""
    incremental = [each for each in proposal.read if each.method is Method.incremental]
    local = [each for each in incremental if _lacks_zone(each)]
    zones = {_zone(each) for each in local}
    zone = next(iter(zones)) if len(zones) == 1 else None
    if proposal.timezone_is_chosen:
        zone = proposal.timestamp_timezone
    follow = (_DELETES, _NO_ZONE, foreign_keys.NO_JOIN)
    found = [warning for warning in proposal.warnings if not any(each in warning for each in follow)]
    if local and not zone:
        found.append(f"{listed(each.table for each in local)}: {_NO_ZONE}")
    if incremental:
        found.append(_DELETES)
    masked = {
        (each.table.schema, each.table.name): foreign_keys.MaskedTable(
            each.table.stream,
            {column.name for column in each.table.columns} - each.left_out_columns.keys(),
            proposal.masks(each),
            each.table.foreign_keys,
        )
        for each in proposal.read
    }
    path = MeltanoSource.of(proposal.source).tap_path
    found += [f"{stream}: {what}" for stream, what in foreign_keys.masked_apart(masked, path)]
    return replace(proposal, warnings=tuple(found), timestamp_timezone=zone)


def with_decision(proposed: TableProposal, decision: Decision) -> TableProposal:
    """Return a table's proposal with another method. Its names, columns and masks stay."""
    return replace(
        proposed,
        method=decision.method,
        reason=decision.reason,
        replication_key=decision.replication_key,
        question=decision.question,
        cost=decision.cost,
        warnings=(*decision.warnings, *columns.choose(proposed.table).warnings),
        masks=tuple(mask for mask in proposed.masks if mask.column != decision.replication_key),
    )


def chosen(tables: Sequence[SourceTable], answers: Answers) -> dict[str, str]:
    """Return the explicit replication keys by stream."""
    found = {}
    for name, column in answers.incremental.items():
        table = _named(tables, name, "--incremental", "SCHEMA.TABLE=COLUMN")
        if why := methods.why_not_incremental(table, column):
            raise UsageError(f"--incremental: {why}.")
        found[table.stream] = column
    return found


def following(tables: Sequence[SourceTable], answers: Answers) -> frozenset[str]:
    """Return the streams that were chosen to follow the log."""
    found = set()
    for name in answers.log_based:
        table = _named(tables, name, "--log-based", "SCHEMA.TABLE")
        if why := methods.why_not_log_based(table):
            raise UsageError(f"--log-based: {why}.")
        found.add(table.stream)
    return frozenset(found)


def _named(tables: Sequence[SourceTable], name: str, option: str, form: str) -> SourceTable:
    hits = [table for table in tables if name in {table.name, str(table), table.stream}]
    if len(hits) != 1:
        what = "no table" if not hits else f"several tables ({listed(hits)})"
        raise UsageError(f"{option}: {name!r} names {what}; write {form}.")
    return hits[0]


def _table(table: SourceTable, decision: Decision) -> TableProposal:
    if decision.method is Method.left_out:
        return TableProposal(table, Method.left_out, decision.reason)
    choice = columns.choose(table)
    if choice.impossible:
        return TableProposal(table, Method.left_out, choice.impossible)
    return TableProposal(
        table,
        decision.method,
        decision.reason,
        decision.replication_key,
        left_out_columns=choice.left_out,
        warnings=(*decision.warnings, *choice.warnings),
        cost=decision.cost,
        question=decision.question,
        offered_columns=choice.offered,
    )


def _without(proposed: TableProposal, reason: str) -> TableProposal:
    return TableProposal(proposed.table, Method.left_out, reason)


def _masks(
    proposed: list[TableProposal], facts: Facts, tables: Iterable[SourceTable]
) -> dict[str, tuple[MaskProposal, ...]]:
    read = {each.table.stream: each for each in proposed if each.method is not Method.left_out}
    found = {
        stream: personal_data.find(each.table, each.left_out_columns, facts.shares.get(stream))
        for stream, each in read.items()
    }
    # tables that are left out carry a join from one table to the next
    alike = personal_data.masked_alike(found, tables)
    return {
        stream: tuple(
            mask
            for mask in masks
            if mask.column != read[stream].replication_key and mask.column not in read[stream].left_out_columns
        )
        for stream, masks in alike.items()
        if stream in read
    }


def _more(proposed: TableProposal, hint: ZoneHint | None) -> list[str]:
    found = []
    incremental = proposed.method is Method.incremental
    if hint and (hint.tells or incremental) and not (incremental and _zone(proposed)):
        found.append(f"{proposed.candidate}: {hint.text}")
    table = proposed.table
    # `.` ends a stream's name in `select` and `metadata`; the others are wildcards
    if odd := [name for name in (table.stream, *(each.name for each in table.columns)) if set(name) & set(".*?[]")]:
        found.append(f"`select` and `metadata` need `?` for the signs . * ? [ ] in {listed(odd)}")
    if offered := proposed.offered_columns:
        found.append("could be left out: " + listed(f"{name} ({why})" for name, why in offered.items()))
    return found


def _lacks_zone(proposed: TableProposal) -> bool:
    column = proposed.table.column(str(proposed.replication_key))
    return is_timestamp(column) and not has_zone(column)


def _zone(proposed: TableProposal) -> str | None:
    """Return the zone that both the trigger and the default of a replication key name; None if that is not certain."""
    column = proposed.table.column(str(proposed.replication_key))
    zone = proposed.table.stamp_zones.get(column.name)
    if zone and (column.default is None or f"'{zone.lower()}'" in column.default.lower()):
        return zone.upper() if zone.lower() == "utc" else zone
    return None
