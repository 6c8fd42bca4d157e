"""What the source's catalogs say about its tables: queries, one a thing, and no judgement."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from psycopg import errors, sql

from tidemark.check.types import Landing, Type, landing

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    import psycopg

KINDS = {"r": "table", "p": "partitioned table", "v": "view", "m": "materialized view", "f": "foreign table"}


@dataclass(frozen=True)
class Column:
    """A column, its type as format_type() gives it."""

    name: str
    type: str
    not_null: bool
    landing: Landing


@dataclass(frozen=True)
class Relation:
    """A table, view or the like; `kind` is one of KINDS."""

    oid: int
    schema: str
    name: str
    kind: str
    is_partition: bool
    columns: Mapping[str, Column] = field(default_factory=dict)

    @property
    def stream(self) -> str:
        """The stream's name."""
        return f"{self.schema}-{self.name}"

    @property
    def path(self) -> tuple[str, str]:
        """Schema and name."""
        return self.schema, self.name


@dataclass(frozen=True)
class Leaf:
    """A table that holds rows: the relation itself, or one of its partitions. `bytes` has out-of-line values, too."""

    oid: int
    path: tuple[str, str]
    kind: str
    bytes: int
    readable: bool
    hides_rows: bool


@dataclass(frozen=True)
class Index:
    """An index that `column` leads."""

    table: int
    column: str
    valid: bool
    path: tuple[str, str]


@dataclass(frozen=True)
class Details:
    """What is asked of a selected relation alone.

    Attributes:
        usable: this role has USAGE on its schema.
        readable: it has SELECT on all of it.
        unreadable: columns that it may not read.
        inherited: other tables, which are no partitions of it, inherit from it.
        key: what tells its rows apart; empty if nothing does.
        nullable_key: a unique index that would, if its columns could not be null.
    """

    usable: bool
    readable: bool
    unreadable: tuple[str, ...]
    hides_rows: bool
    owned: bool
    inherited: bool
    key: tuple[str, ...]
    nullable_key: tuple[str, ...]
    leaves: tuple[Leaf, ...]
    indexes: tuple[Index, ...]


_RELATIONS = """
    select c.oid::bigint, n.nspname, c.relname, c.relkind::text, c.relispartition
    from pg_catalog.pg_class c join pg_catalog.pg_namespace n on n.oid = c.relnamespace
    where c.relkind in ('r', 'p', 'v', 'm', 'f') and n.nspname <> 'information_schema' and n.nspname !~ '^pg_'
    order by n.nspname, c.relname
"""
_COLUMNS = """
    select attrelid::bigint, attname, pg_catalog.format_type(atttypid, atttypmod), attnotnull, atttypid::bigint
    from pg_catalog.pg_attribute
    where attrelid = any(%s::bigint[]::oid[]) and attnum > 0 and not attisdropped
    order by attrelid, attnum
"""
_TYPES = """
    with recursive wanted(oid) as (
        select unnest(%s::bigint[]::oid[])
        union
        select part from wanted join pg_catalog.pg_type t using (oid)
        cross join lateral (values (t.typelem), (t.typbasetype)) parts(part) where part <> 0
    )
    select t.oid::bigint,
        case when t.typnamespace = 'pg_catalog'::regnamespace
            then pg_catalog.format_type(t.oid, null) else t.typname end,
        t.typnamespace = 'pg_catalog'::regnamespace, t.typtype::text,
        -- name, point and the like have elements too, and are no arrays
        case when t.typcategory = 'A' and t.typlen = -1 then t.typelem else 0 end::bigint,
        t.typbasetype::bigint, pg_catalog.format_type(t.typbasetype, t.typtypmod), e.extname
    from wanted join pg_catalog.pg_type t using (oid)
    left join pg_catalog.pg_depend d
        on d.classid = 'pg_catalog.pg_type'::regclass and d.objid = t.oid and d.deptype = 'e'
    left join pg_catalog.pg_extension e on e.oid = d.refobjid
"""
# the tap takes the primary key, or else a unique index that is as good: whole, immediate, of columns that can't be null
_KEYS = """
    select c.oid::bigint, pg_catalog.has_schema_privilege(c.relnamespace, 'usage'),
        pg_catalog.has_table_privilege(c.oid, 'select'),
        array(
            select attname::text from pg_catalog.pg_attribute where attrelid = c.oid and attnum > 0
            and not attisdropped and not pg_catalog.has_column_privilege(c.oid, attnum, 'select') order by attnum
        ), pg_catalog.row_security_active(c.oid),
        pg_catalog.pg_has_role(c.relowner, 'usage'),
        c.relkind = 'r' and exists (select from pg_catalog.pg_inherits where inhparent = c.oid),
        best.names, best.whole
    from pg_catalog.pg_class c
    left join lateral (
        select array_agg(a.attname::text order by k.position) as names, bool_and(a.attnotnull) as whole
        from pg_catalog.pg_index i
        cross join lateral unnest(i.indkey::int2[]) with ordinality k(attnum, position)
        join pg_catalog.pg_attribute a on a.attrelid = i.indrelid and a.attnum = k.attnum
        where i.indrelid = c.oid and i.indisunique and i.indisvalid and i.indimmediate and i.indpred is null
            and i.indexprs is null and k.position <= i.indnkeyatts
        group by i.indexrelid, i.indisprimary, i.indnkeyatts
        order by bool_and(a.attnotnull) desc, i.indisprimary desc, i.indnkeyatts, i.indexrelid limit 1
    ) best on true
    where c.oid = any(%s::bigint[]::oid[])
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
# those that find the rows from a value on
_INDEXES = """
    select i.indrelid::bigint, a.attname, i.indisvalid, n.nspname, c.relname
    from pg_catalog.pg_index i
    join pg_catalog.pg_class c on c.oid = i.indexrelid join pg_catalog.pg_namespace n on n.oid = c.relnamespace
    join pg_catalog.pg_am m on m.oid = c.relam
    join pg_catalog.pg_attribute a on a.attrelid = i.indrelid and a.attnum = i.indkey[0]
    where i.indrelid = any(%s::bigint[]::oid[]) and i.indpred is null and m.amname in ('btree', 'brin')
"""


def read(connection: psycopg.Connection[Any], schemas: frozenset[str]) -> list[Relation]:
    """Return all relations but the system's; those in `schemas`, or in all if there are none, with columns."""
    heads = [Relation(*row) for row in connection.execute(_RELATIONS)]
    wanted = [head.oid for head in heads if not head.is_partition and (not schemas or head.schema in schemas)]
    rows = connection.execute(_COLUMNS, [wanted]).fetchall()
    types = {row[0]: Type(*row) for row in connection.execute(_TYPES, [sorted({row[-1] for row in rows})])}
    columns: dict[int, dict[str, Column]] = {}
    for oid, name, declared, not_null, type_ in rows:
        columns.setdefault(oid, {})[name] = Column(name, declared, not_null, landing(type_, declared, types))
    return [Relation(**{**vars(head), "columns": columns.get(head.oid, {})}) for head in heads]


def details(connection: psycopg.Connection[Any], relations: Iterable[Relation]) -> dict[int, Details]:
    """Return the details of `relations` by oid."""
    oids = [relation.oid for relation in relations]
    leaves: dict[int, list[Leaf]] = {}
    for root, oid, schema, name, *rest in connection.execute(_LEAVES, [oids]):
        leaves.setdefault(root, []).append(Leaf(oid, (schema, name), *rest))
    tables = {*oids, *(leaf.oid for each in leaves.values() for leaf in each)}
    indexes: dict[int, list[Index]] = {}
    for table, column, valid, *path in connection.execute(_INDEXES, [sorted(tables)]):
        indexes.setdefault(table, []).append(Index(table, column, valid, (path[0], path[1])))
    found = {}
    for oid, usable, readable, unreadable, hides_rows, owned, inherited, names, whole in connection.execute(
        _KEYS, [oids]
    ):
        parts = tuple(leaves.get(oid, ()))
        found[oid] = Details(
            usable,
            readable,
            tuple(unreadable),
            hides_rows,
            owned,
            inherited,
            # children of an inheritance parent can hold its key again
            key=tuple(names) if names and whole and not inherited else (),
            nullable_key=tuple(names) if names and not whole else (),
            leaves=parts,
            indexes=tuple(index for table in {oid, *(leaf.oid for leaf in parts)} for index in indexes.get(table, ())),
        )
    return found


def has_order(connection: psycopg.Connection[Any], type_: str) -> bool:
    """Return whether values of `type_`, as format_type() gives it, can be sorted, as the tap sorts them."""
    query = sql.SQL("select value from (values (null::{})) one (value) order by value").format(sql.SQL(type_))
    try:
        with connection.transaction():
            connection.execute(query)
    except errors.UndefinedFunction:
        return False
    return True
