"""What onboarding proposes for a source, table by table, each with its reason in words. Data only."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tidemark.onboard.source_tables import SourceTable


class Method(StrEnum):
    """How a table is read: Singer's replication methods, or not at all."""

    incremental = "INCREMENTAL"
    full_table = "FULL_TABLE"
    log_based = "LOG_BASED"
    left_out = "left out"


@dataclass(frozen=True)
class MaskProposal:
    """Personal data that a column seems to hold, and the mask for it.

    Attributes:
        mask: one of the tap's masks, such as `sha256`.
        why: what it was recognised by, in words, without any of its values.
    """

    column: str
    mask: str
    why: str


@dataclass(frozen=True)
class Question:
    """What only a person knows about a table. Without an answer the table is read whole, which is always right.

    Attributes:
        column: the replication key, if the answer is yes.
        insert_only: a yes means that rows are never updated, and not that the application keeps the column.
    """

    column: str
    text: str
    insert_only: bool = False


@dataclass(frozen=True)
class TableProposal:
    """What is proposed for one table.

    Attributes:
        reason: why `method`, in words.
        replication_key: for INCREMENTAL.
        left_out_columns: columns that are not read, each with the reason.
        masks: proposed, and written only if `masks_confirmed`.
        raw_name: the table's name in the source's raw schema.
        model: the name of its staging model, such as `stg_pagila__film`.
        warnings: what a person should know or decide, one line each.
        cost: what a run reads, in words.
        question: what decides between INCREMENTAL and FULL_TABLE.
        declined: the replication key that a person said no to; the table is read whole.
        offered_columns: columns that are read, and could well be left out, each with the reason.
        pair: the tap and target that load it, without `tap-` and `target-`; empty for the source's own.
        raw_schema: the warehouse's schema for it; empty for the source's own.
        by_edited_file: it is left out because a file that a person edited does not have it.
    """

    table: SourceTable
    method: Method
    reason: str
    replication_key: str | None = None
    left_out_columns: dict[str, str] = field(default_factory=dict)
    masks: tuple[MaskProposal, ...] = ()
    masks_confirmed: bool = False
    raw_name: str = ""
    model: str = ""
    warnings: tuple[str, ...] = ()
    cost: str = ""
    question: Question | None = None
    offered_columns: dict[str, str] = field(default_factory=dict)
    pair: str = ""
    raw_schema: str = ""
    declined: str | None = None
    by_edited_file: bool = False

    @property
    def candidate(self) -> str | None:
        """The replication key, or the column that would be it after a yes."""
        return self.replication_key or (self.question.column if self.question else None)


@dataclass(frozen=True)
class Proposal:
    """The proposal for a source.

    Attributes:
        source: its name: that of its tap without `tap-`.
        raw_schema: the warehouse's schema that the target loads it into.
        tables: those that can be read, in the order of their names.
        timestamp_timezone: the zone of replication keys without one, if it is known for all of them.
        role: the role that the tap connects as.
        timezone_is_chosen: a person gave `timestamp_timezone`.
        all_streams: all tables of the source as streams, also those that no proposal is made for.
        schemas: the only schemas that are read; empty for all.
        left_out_by_choice: streams that could be read, and a person left out.
        file_masks: the masks in the tap's file, by stream and column.
        tap_is_edited: somebody edited the tap's file, so it keeps its masks, and gets no others.
    """

    source: str
    raw_schema: str
    tables: tuple[TableProposal, ...]
    warnings: tuple[str, ...] = ()
    timestamp_timezone: str | None = None
    role: str = ""
    timezone_is_chosen: bool = False
    all_streams: frozenset[str] = frozenset()
    schemas: tuple[str, ...] = ()
    left_out_by_choice: tuple[str, ...] = ()
    file_masks: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    tap_is_edited: bool = False

    @property
    def read(self) -> tuple[TableProposal, ...]:
        """The tables that are read."""
        return tuple(each for each in self.tables if each.method is not Method.left_out)

    def masks(self, each: TableProposal) -> dict[str, str]:
        """Return the masks that a table is read with: those that are confirmed, and those in the tap's file."""
        confirmed = {mask.column: mask.mask for mask in each.masks if each.masks_confirmed and not self.tap_is_edited}
        return confirmed | dict(self.file_masks.get(each.table.stream) or {})

    @property
    def pairs(self) -> dict[str, str]:
        """The further pairs of tap and target, each with its raw schema: those of schemas with names that collide."""
        return {each.pair: each.raw_schema for each in self.read if each.pair}
