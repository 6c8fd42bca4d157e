"""Reads the source's catalogs for the check, with one query for each kind of object. It judges nothing."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from psycopg import errors, sql

from singer_postgres.core.source import missing_key, relations

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    import psycopg

    from singer_postgres.core.source.missing_key import MissingKey
    from singer_postgres.core.source.relations import Column, Undescribed


@dataclass(frozen=True)
class CheckedRelation:
    """A table, partitioned table, view, materialized view or foreign table.

    Attributes:
        kind: one of the tap's KINDS.
        described: the tap's description; None if the tap doesn't discover the relation.
    """

    oid: int
    schema: str
    name: str
    kind: str
    is_partition: bool
    described: relations.Relation | None = None

    @cached_property
    def columns(self) -> Mapping[str, Column]:
        """The columns by name."""
        return {column.name: column for column in self.described.columns} if self.described else {}

    @property
    def stream(self) -> str:
        """The stream's name."""
        return f"{self.schema}-{self.name}"

    @property
    def path(self) -> tuple[str, str]:
        """Schema and name."""
        return self.schema, self.name


@dataclass(frozen=True)
class CheckedLeaf:
    """A table that stores rows: the relation itself, or one of its partitions. `bytes` includes TOAST."""

    oid: int
    path: tuple[str, str]
    kind: str
    bytes: int
    readable: bool
    hides_rows: bool


@dataclass(frozen=True)
class Index:
    """An index whose first column is `column`."""

    table: int
    column: str
    valid: bool
    path: tuple[str, str]


@dataclass(frozen=True)
class Details:
    """Details that are only read for selected relations.

    Attributes:
        usable: this role has USAGE on the schema.
        readable: this role has SELECT on the whole relation.
        unreadable: columns that this role may not read.
        inherited: other tables, which are not its partitions, inherit from it.
        key: the columns that identify a row; empty if there is no key.
        lack: the reason why there is no key.
    """

    usable: bool
    readable: bool
    unreadable: tuple[str, ...]
    hides_rows: bool
    owned: bool
    inherited: bool
    key: tuple[str, ...]
    lack: MissingKey
    leaves: tuple[CheckedLeaf, ...]
    indexes: tuple[Index, ...]


_RIGHTS = """
    select c.oid::bigint, pg_catalog.has_schema_privilege(c.relnamespace, 'usage'),
        pg_catalog.has_table_privilege(c.oid, 'select'),
        array(
            select attname::text from pg_catalog.pg_attribute where attrelid = c.oid and attnum > 0
            and not attisdropped and not pg_catalog.has_column_privilege(c.oid, attnum, 'select') order by attnum
        ), pg_catalog.row_security_active(c.oid), pg_catalog.pg_has_role(c.relowner, 'usage')
    from pg_catalog.pg_class c where c.oid = any(%s::bigint[]::oid[])
"""
_LEAVES = """
    select root.oid::bigint, c.oid::bigint, n.nspname, c.relname, c.relkind::text, pg_catalog.pg_table_size(c.oid),
        pg_catalog.has_table_privilege(c.oid, 'select'), pg_catalog.row_security_active(c.oid)
    from unnest(%s::bigint[]::oid[]) root(oid)
    cross join lateral (
        select root.oid where not exists (select from pg_catalog.pg_partition_tree(root.oid))
        union all
        select relid::oid from pg_catalog.pg_partition_tree(root.oid) where isleaf
    ) leaf(oid)
    join pg_catalog.pg_class c on c.oid = leaf.oid join pg_catalog.pg_namespace n on n.oid = c.relnamespace
    order by n.nspname, c.relname
"""
# only indexes that can find the rows from a value on
_INDEXES = """
    select i.indrelid::bigint, a.attname, i.indisvalid, n.nspname, c.relname
    from pg_catalog.pg_index i
    join pg_catalog.pg_class c on c.oid = i.indexrelid join pg_catalog.pg_namespace n on n.oid = c.relnamespace
    join pg_catalog.pg_am m on m.oid = c.relam
    join pg_catalog.pg_attribute a on a.attrelid = i.indrelid and a.attnum = i.indkey[0]
    where i.indrelid = any(%s::bigint[]::oid[]) and i.indpred is null and m.amname in ('btree', 'brin')
"""


def read(
    connection: psycopg.Connection[Any], schemas: frozenset[str]
) -> tuple[list[CheckedRelation], list[Undescribed]]:
    """Return all relations but the system's, and relations of `schemas` (by default all) that the tap can't describe.

    Relations that the tap discovers have a description. Call this in a transaction with one snapshot.
    """
    heads = relations.heads(connection, every=True)
    wanted = [head.oid for head in heads if not head.is_partition and (not schemas or head.schema in schemas)]
    found, left_out = relations.describe(connection, wanted)
    described = {relation.oid: relation for relation in found}
    unknown = {each.oid for each in left_out}
    return [
        CheckedRelation(head.oid, head.schema, head.name, head.kind, head.is_partition, described.get(head.oid))
        for head in heads
        if head.oid not in unknown
    ], left_out


def details(
    connection: psycopg.Connection[Any], selected: Iterable[relations.Relation], *, lacks: bool = True
) -> dict[int, Details]:
    """Return the details of relations by oid.

    Args:
        lacks: also find out why a relation has no key, which takes queries of its own for each.
    """
    described = {relation.oid: relation for relation in selected}
    oids = list(described)
    leaves: dict[int, list[CheckedLeaf]] = {}
    for root, oid, schema, name, *rest in connection.execute(_LEAVES, [oids]):
        leaves.setdefault(root, []).append(CheckedLeaf(oid, (schema, name), *rest))
    tables = {*oids, *(leaf.oid for each in leaves.values() for leaf in each)}
    indexes: dict[int, list[Index]] = {}
    for table, column, valid, *path in connection.execute(_INDEXES, [sorted(tables)]):
        indexes.setdefault(table, []).append(Index(table, column, valid, (path[0], path[1])))
    found = {}
    for oid, usable, readable, unreadable, hides_rows, owned in connection.execute(_RIGHTS, [oids]):
        parts = tuple(leaves.get(oid, ()))
        relation = described[oid]
        found[oid] = Details(
            usable,
            readable,
            tuple(unreadable),
            hides_rows,
            owned,
            relation.inherited,
            key=relation.key,
            lack=missing_key.MissingKey()
            if relation.key or not lacks
            else missing_key.missing_key(connection, relation),
            leaves=parts,
            indexes=tuple(index for table in {oid, *(leaf.oid for leaf in parts)} for index in indexes.get(table, ())),
        )
    return found


def has_order(connection: psycopg.Connection[Any], type_: str) -> bool:
    """Return whether the tap can sort values of `type_`, a name from format_type()."""
    query = sql.SQL("select value from (values (null::{})) one (value) order by value").format(sql.SQL(type_))
    try:
        with connection.transaction():
            connection.execute(query)
    except errors.UndefinedFunction:
        return False
    return True


_EXTENSIONS = """
    select distinct on (t.typname) t.typname::text, e.extname::text from pg_catalog.pg_type t
    join pg_catalog.pg_depend d on d.classid = 'pg_catalog.pg_type'::regclass and d.objid = t.oid and d.deptype = 'e'
    join pg_catalog.pg_extension e on e.oid = d.refobjid
    where t.typname = any(%s) order by t.typname
"""


def extensions(connection: psycopg.Connection[Any], types: Iterable[str]) -> dict[str, str]:
    """Return the extension of each type that belongs to one."""
    return dict(connection.execute(_EXTENSIONS, [list(types)]).fetchall())


def extension_type(column: Column) -> str:
    """Return the name of a column's type, or of its array's element type, without modifiers."""
    return (column.target_type.type or "").partition("(")[0].removesuffix("[]")
