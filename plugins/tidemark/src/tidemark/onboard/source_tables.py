"""A source's tables as onboarding sees them: facts from the catalogs and statistics, without any judgement."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tidemark.inspect.foreign_keys import ForeignKey


@dataclass(frozen=True)
class SourceColumn:
    """A column.

    Attributes:
        type: as PostgreSQL writes it, such as `character varying(20)` or `public.mood`.
        base_type: the type below domains, as PostgreSQL writes it.
        kind: pg_type.typtype of `type`: `b` base, `e` enum, `d` domain, `c` composite, `r` range, `m` multirange.
        enum_labels: the labels of an enum, or of the enum below a domain, in their order.
        is_generated: the source computes it from other columns.
        is_identity: the source numbers it.
        readable: the tap's role may read it.
        average_bytes: by the statistics; None if it was never analyzed.
        distinct: pg_stats.n_distinct; None if it was never analyzed.
        warehouse_type: its type in the warehouse; None if its values can't be transferred, empty if unknown.
        instead_of: the source's type, for people, if the warehouse gets another; else empty.
        of_extension: the type belongs to an extension, which the warehouse may lack.
    """

    name: str
    type: str
    base_type: str
    kind: str = "b"
    enum_labels: tuple[str, ...] = ()
    not_null: bool = False
    default: str | None = None
    is_generated: bool = False
    is_identity: bool = False
    readable: bool = True
    comment: str | None = None
    average_bytes: int | None = None
    distinct: float | None = None
    warehouse_type: str | None = ""
    instead_of: str = ""
    of_extension: bool = False


@dataclass(frozen=True)
class ValueList:
    """A check constraint that allows a column only these values."""

    column: str
    values: tuple[str, ...]


@dataclass(frozen=True)
class SourceTable:
    """A table, partitioned table, view, materialized view or foreign table.

    Attributes:
        kind: one of singer_postgres.core.source.relations.KINDS.
        rows: the planner's estimate; negative if it has none.
        bytes: with its partitions and TOAST, without indexes.
        key: the primary key's columns, or else those of a unique index on NOT NULL columns; empty without either.
        has_primary_key: `key` is the primary key.
        unique: the columns of each further unique constraint or index, without partial and expression indexes.
        indexed: columns that are the first of a valid btree or brin index, in each partition too.
        kept_by_trigger: columns that a trigger sets at each update, each with the trigger's name.
        readable: the tap's role may read it.
        hides_rows: row-level security applies to the tap's role.
        has_children: other tables inherit from it, other than as partitions.
        schema_usable: the tap's role has USAGE on the schema.
        parents: the tables that it inherits from, as SCHEMA.TABLE.
        partitions: the number of its partitions that store rows.
        doubtful_triggers: columns that a trigger sets at some updates, or in a way that is not understood, each with
            the trigger and the reason in words.
        stamp_zones: columns that the trigger sets to the time in a zone that it names, each with that zone.
    """

    schema: str
    name: str
    kind: str
    columns: tuple[SourceColumn, ...]
    oid: int = 0
    rows: float = -1
    bytes: int = 0
    comment: str | None = None
    key: tuple[str, ...] = ()
    has_primary_key: bool = False
    unique: tuple[tuple[str, ...], ...] = ()
    foreign_keys: tuple[ForeignKey, ...] = ()
    value_lists: tuple[ValueList, ...] = ()
    indexed: frozenset[str] = frozenset()
    kept_by_trigger: dict[str, str] = field(default_factory=dict)
    readable: bool = True
    hides_rows: bool = False
    has_children: bool = False
    schema_usable: bool = True
    parents: tuple[str, ...] = ()
    partitions: int = 0
    doubtful_triggers: dict[str, str] = field(default_factory=dict)
    stamp_zones: dict[str, str] = field(default_factory=dict)

    @property
    def stream(self) -> str:
        """The tap's name of it."""
        return f"{self.schema}-{self.name}"

    def column(self, name: str) -> SourceColumn:
        """Return the column of that name."""
        return next(column for column in self.columns if column.name == name)

    def __str__(self) -> str:
        return f"{self.schema}.{self.name}"
