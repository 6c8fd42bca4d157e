"""The columns of a table that is read, as its staging model has them: which ones, under which alias, in which group."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tidemark.onboard import identifiers, warehouse_types

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from tidemark.inspect.foreign_keys import ForeignKey
    from tidemark.onboard.proposal import Proposal, TableProposal
    from tidemark.onboard.source_tables import SourceColumn

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
        raw_schema: the warehouse's schema that it is loaded into.
        source_name: its name in dbt's source.
    """

    proposal: TableProposal
    columns: Mapping[str, StagedColumn]
    raw_schema: str
    source_name: str

    @property
    def model(self) -> str:
        """Its staging model."""
        return self.proposal.model

    @property
    def dbt_source(self) -> str:
        """The name of dbt's source: each raw schema is one."""
        return dbt_source(self.raw_schema)

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
        source_names: Mapping[str, Mapping[str, str]] | None = None,
        taken: Iterable[str] = (),
    ) -> StagedSource:
        """Name everything.

        Args:
            aliases: the columns' aliases of the last time, by stream and column.
            source_names: the tables' names in dbt's sources of the last time, by raw schema and table.
            taken: names in dbt's sources that belong to tables which are no longer read.
        """
        by_schema: dict[str, list[str]] = {}
        for each in proposal.read:
            by_schema.setdefault(each.raw_schema or proposal.raw_schema, []).append(each.raw_name)
        # the loader's record of its runs is one of the source's tables, too
        named = {
            schema: identifiers.unique(
                tables, taken=["_tidemark_runs", *taken], before=(source_names or {}).get(schema), empty="table"
            )
            for schema, tables in by_schema.items()
        }
        found = {}
        for each in proposal.read:
            schema = each.raw_schema or proposal.raw_schema
            columns = _columns(each, (aliases or {}).get(each.table.stream, {}))
            found[each.table.schema, each.table.name] = StagedTable(each, columns, schema, named[schema][each.raw_name])
        return cls(proposal, found)

    def parent(self, key: ForeignKey) -> StagedTable | None:
        """Return the table that a foreign key refers to; None if it is not read."""
        return self.tables.get((key.to_schema, key.to_table))


def dbt_source(raw_schema: str) -> str:
    """Return the name of dbt's source for a raw schema."""
    return identifiers.legal(raw_schema)


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
