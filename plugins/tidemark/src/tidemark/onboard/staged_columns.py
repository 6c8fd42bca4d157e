"""The columns of a table that is read, as its staging model has them: which ones, under which alias, in which group."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tidemark.onboard import identifiers, warehouse_types

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from tidemark.onboard.proposal import Proposal, TableProposal
    from tidemark.onboard.source_tables import ForeignKey, SourceColumn

# the order of a staging model's parts
GROUPS = ("ids", "text", "numbers", "booleans", "dates", "timestamps")
# The loader's own columns. A column of the source with such a name can't be loaded.
_OF_LOADER = frozenset(
    {
        *("_sdc_extracted_at", "_sdc_received_at", "_sdc_batched_at", "_sdc_deleted_at", "_sdc_sequence"),
        *("_sdc_table_version", "_sdc_sync_started_at"),
    }
)


@dataclass(frozen=True)
class StagedColumn:
    """A column.

    Attributes:
        group: one of GROUPS.
        mask: the tap's mask of it; None without one.
        type: its type in the warehouse; None if only the warehouse can tell.
    """

    source: SourceColumn
    alias: str
    group: str
    mask: str | None = None
    type: str | None = None

    @property
    def sql(self) -> str:
        """The alias as an identifier in SQL."""
        return identifiers.quoted(self.alias)


@dataclass(frozen=True)
class StagedTable:
    """A table that is read.

    Attributes:
        columns: those that are read, in the source's order, by their name in the source.
        source_name: its name among dbt's sources.
    """

    proposal: TableProposal
    columns: Mapping[str, StagedColumn]
    source_name: str

    @property
    def model(self) -> str:
        """Its staging model."""
        return self.proposal.model

    @property
    def key(self) -> tuple[StagedColumn, ...]:
        """The key's columns; none if it has no key, or if a part of it is not read."""
        key = self.proposal.table.key
        return tuple(self.columns[name] for name in key) if set(key) <= self.columns.keys() else ()

    @property
    def entity(self) -> str:
        """The name of what its rows are, for the models above: the staging model's name without `stg_`."""
        return self.model.removeprefix("stg_")

    def grouped(self) -> list[tuple[str, list[StagedColumn]]]:
        """Return the columns of each part of the staging model."""
        found = {name: [each for each in self.columns.values() if each.group == name] for name in GROUPS}
        return [(name, columns) for name, columns in found.items() if columns]


@dataclass(frozen=True)
class StagedSource:
    """The tables of a source that are read, by schema and name."""

    proposal: Proposal
    tables: Mapping[tuple[str, str], StagedTable] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        proposal: Proposal,
        *,
        aliases: Mapping[str, Mapping[str, str]] | None = None,
        source_names: Mapping[str, str] | None = None,
        taken: Iterable[str] = (),
    ) -> StagedSource:
        """Name everything.

        Args:
            aliases: the columns' aliases of the last time, by stream and column.
            source_names: the tables' names among dbt's sources of the last time, by raw table.
            taken: names among dbt's sources that belong to tables which are no longer read.
        """
        # the loader's record of its runs is one of the source's tables, too
        named = identifiers.unique(
            [each.raw_name for each in proposal.read],
            taken=["_tidemark_runs", *taken],
            before=source_names,
            empty="table",
        )
        tables = {
            (each.table.schema, each.table.name): StagedTable(
                each, _columns(each, (aliases or {}).get(each.table.stream, {})), named[each.raw_name]
            )
            for each in proposal.read
        }
        return cls(proposal, tables)

    @property
    def name(self) -> str:
        """Its name among dbt's sources."""
        return identifiers.snake_case(self.proposal.raw_schema)

    def parent(self, key: ForeignKey) -> StagedTable | None:
        """Return the table that a foreign key refers to; None if it is not read."""
        return self.tables.get((key.to_schema, key.to_table))


def _columns(table: TableProposal, before: Mapping[str, str]) -> dict[str, StagedColumn]:
    read = [
        each
        for each in table.table.columns
        if each.readable
        and each.name not in table.left_out_columns
        and each.name not in _OF_LOADER
        and not each.name.startswith("_tidemark_")
    ]
    aliases = identifiers.unique([each.name for each in read], taken=identifiers.ADDED, before=before)
    masks = {each.column: each.mask for each in table.masks} if table.masks_confirmed else {}
    ids = {*table.table.key, *(name for key in table.table.foreign_keys for name in key.columns)}
    found = {}
    for column in read:
        mask = masks.get(column.name)
        group = "ids" if column.name in ids else warehouse_types.group(column, mask)
        found[column.name] = StagedColumn(
            column, aliases[column.name], group, mask, warehouse_types.landed(column, mask)
        )
    return found
