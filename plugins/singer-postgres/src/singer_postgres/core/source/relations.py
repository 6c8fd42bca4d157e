"""The source's relations, with their columns, keys and partitions. Each kind is read in one query of the catalogs."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from singer_postgres.core.errors import one_line
from singer_postgres.core.types import TargetType, Type, target_type

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from psycopg2.extensions import connection as Connection  # noqa: N812

    from singer_postgres.core.source.selected_streams import SelectedStreams

# r: table, p: partitioned table, v: view, m: materialized view, f: foreign table
KINDS = {"r": "table", "p": "partitioned table", "v": "view", "m": "materialized view", "f": "foreign table"}


@dataclass(frozen=True)
class Column:
    """A column of the source."""

    name: str
    declared: str
    target_type: TargetType
    not_null: bool
    attnum: int = 0
    missing_value: str | None = None
    """The value of rows that are older than the column (attmissingval), as text; None if there is no such value."""
    readable: bool = True
    """This role may read the column."""


@dataclass(frozen=True)
class Leaf:
    """A plain table that stores rows: the relation itself, or one of its partitions."""

    oid: int
    schema: str
    name: str
    relfilenode: int
    blocks: int
    bytes: int
    readable: bool


@dataclass(frozen=True)
class Relation:
    """A table, partitioned table, view, materialized view or foreign table."""

    oid: int
    schema: str
    name: str
    kind: str
    rows: float = field(compare=False)
    """The planner's estimate; negative if it has none."""
    inherited: bool
    """Other tables inherit from it, other than as partitions. Reading it reads them too, so a key may repeat."""
    hides_rows: bool
    """Row-level security applies to this role."""
    columns: tuple[Column, ...] = ()
    key: tuple[str, ...] = ()
    leaves: tuple[Leaf, ...] = field(default=(), compare=False)
    seen: str | None = field(default=None, compare=False)
    """A transaction id: the snapshot under which this was read sees all older transactions."""

    @property
    def max_attnum(self) -> int:
        """The largest attnum of its columns."""
        return max((column.attnum for column in self.columns), default=0)

    def __str__(self) -> str:
        return f"{self.schema}.{self.name}"


# names as bytes: a SQL_ASCII database may have names that are not valid UTF-8
_HEADS = """
    select c.oid::bigint, pg_catalog.convert_to(n.nspname, encoding), pg_catalog.convert_to(c.relname, encoding),
        c.relkind::text, c.relispartition
    from pg_catalog.pg_class c join pg_catalog.pg_namespace n on n.oid = c.relnamespace,
        (select case pg_catalog.getdatabaseencoding() when 'SQL_ASCII' then 'SQL_ASCII' else 'UTF8' end) of(encoding)
    where c.relkind in ('r', 'p', 'v', 'm', 'f') and n.nspname <> 'information_schema' and n.nspname !~ '^pg_'
        and (%s or not c.relispartition and (%s::text[] is null or n.nspname = any(%s::text[])))
    order by n.nspname, c.relname
"""
_RELATIONS = """
    select c.oid::bigint, n.nspname, c.relname, c.relkind::text, c.reltuples,
        c.relhassubclass and c.relkind = 'r' and exists (select from pg_catalog.pg_inherits where inhparent = c.oid),
        pg_catalog.row_security_active(c.oid), pg_catalog.pg_snapshot_xmin(pg_catalog.pg_current_snapshot())::text
    from pg_catalog.pg_class c join pg_catalog.pg_namespace n on n.oid = c.relnamespace
    where c.relkind in ('r', 'p', 'v', 'm', 'f') and {condition}
    order by n.nspname, c.relname
"""
_COLUMNS = """
    select attrelid::bigint, attname, atttypid::bigint, pg_catalog.format_type(atttypid, atttypmod),
        attnotnull and attnum <> all({unproven}), attnum, {missing_value}
    from pg_catalog.pg_attribute a
    where attrelid = any(%s::bigint[]::oid[]) and attnum > 0 and not attisdropped
    order by attrelid, attnum
"""
# columns that are NOT NULL NOT VALID (from PostgreSQL 18 on): old rows may have nulls
UNPROVEN = """array(
    select conkey[1] from pg_catalog.pg_constraint where conrelid = a.attrelid and contype = 'n' and not convalidated
)"""
# attmissingval is an anyarray of one element, which only array_to_string can read. Partitions have that of their
# partitioned table; those that were created after the column have no rows that are older than it.
_MISSING_VALUE = """
        case when atthasmissing then pg_catalog.array_to_string(attmissingval, '')
        when (select relkind = 'p' from pg_catalog.pg_class where oid = attrelid) then (
            select min(value) from (
                select distinct pg_catalog.array_to_string(of_part.attmissingval, '')
                from pg_catalog.pg_partition_tree(a.attrelid) part
                join pg_catalog.pg_attribute of_part on of_part.attrelid = part.relid and of_part.attname = a.attname
                where of_part.atthasmissing and not of_part.attisdropped
            ) found(value) having count(*) = 1
        ) end,
        pg_catalog.has_column_privilege(attrelid, attnum, 'select')
"""
_TYPES = """
    with recursive wanted(oid) as (
        select unnest(%s::bigint[]::oid[])
        union
        select part from wanted join pg_catalog.pg_type t using (oid)
        cross join lateral (values (t.typelem), (t.typbasetype)) parts(part) where part <> 0
    )
    select t.oid::bigint, case when t.typnamespace = 'pg_catalog'::regnamespace
            then pg_catalog.format_type(t.oid, null) else t.typname end,
        t.typnamespace = 'pg_catalog'::regnamespace, t.typtype::text,
        -- name, point and some others have elements too, but are not arrays
        case when t.typcategory = 'A' and t.typlen = -1 then t.typelem else 0 end::bigint,
        t.typbasetype::bigint, pg_catalog.format_type(t.typbasetype, t.typtypmod), t.typdelim::text
    from wanted join pg_catalog.pg_type t using (oid)
"""
# The primary key, or else a unique index that is as good: not partial, only on columns that can't be null. A deferrable
# constraint holds for everything committed, and a snapshot sees nothing else; an immediate one is preferred.
_KEYS = """
    select distinct on (i.indrelid) i.indrelid::bigint, (
        select array_agg(a.attname::text order by k.position)
        from unnest(i.indkey::int2[]) with ordinality k(attnum, position)
        join pg_catalog.pg_attribute a on a.attrelid = i.indrelid and a.attnum = k.attnum
        where k.position <= i.indnkeyatts
    )
    from pg_catalog.pg_index i
    where i.indrelid = any(%s::bigint[]::oid[]) and i.indisunique and i.indisvalid
        and i.indpred is null and i.indexprs is null
        and not exists (
            select from unnest(i.indkey::int2[]) with ordinality k(attnum, position)
            join pg_catalog.pg_attribute a on a.attrelid = i.indrelid and a.attnum = k.attnum
            where k.position <= i.indnkeyatts and (not a.attnotnull or a.attnum = any({unproven}))
        )
    order by i.indrelid, i.indimmediate desc, i.indisprimary desc, i.indnkeyatts, i.indexrelid
"""
_LEAVES = """
    select c.oid::bigint, n.nspname, c.relname, pg_catalog.pg_relation_filenode(c.oid)::bigint,
        pg_catalog.pg_relation_size(c.oid) / pg_catalog.current_setting('block_size')::bigint,
        pg_catalog.pg_table_size(c.oid), pg_catalog.has_table_privilege(c.oid, 'select'), c.relkind::text
    from (
        select %s::bigint::oid as oid where not %s
        union all
        select relid from pg_catalog.pg_partition_tree(%s::bigint::oid) where %s and isleaf
    ) leaf join pg_catalog.pg_class c using (oid) join pg_catalog.pg_namespace n on n.oid = c.relnamespace
    order by c.oid
"""

_ESCAPED_NAME = """
    select encode(convert_to(n.nspname || '.' || c.relname, getdatabaseencoding()), 'escape')
    from pg_catalog.pg_class c join pg_catalog.pg_namespace n on n.oid = c.relnamespace where c.oid = %s
"""


@dataclass(frozen=True)
class Head:
    """A relation's name and kind. Bytes that are not valid UTF-8 are replaced in the name."""

    oid: int
    schema: str
    name: str
    kind: str
    is_partition: bool


@dataclass(frozen=True)
class Undescribed:
    """A relation that discovery can't describe.

    Attributes:
        name: its name, with non-ASCII bytes escaped.
        why: the server's error.
    """

    oid: int
    name: str
    why: str

    def __str__(self) -> str:
        return f"{self.name} is left out of the catalog, because it can't be described: {self.why}"


def in_schemas(
    connection: Connection, schemas: Sequence[str], *, wanted: SelectedStreams | None = None
) -> tuple[list[Relation], list[Undescribed]]:
    """Return all relations of `schemas` (by default, of all but the system's schemas), and the ones it can't describe.

    Partitions belong to their table and are not listed.

    Args:
        wanted: leave out relations that this doesn't match.
    """
    with connection.cursor() as cursor:
        # in several snapshots, a table could have columns whose types are already gone
        cursor.execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
        oids = [
            head.oid
            for head in heads(connection, schemas)
            if wanted is None or wanted.may_match(f"{head.schema}-{head.name}")
        ]
        found, left_out = describe(connection, oids)
        cursor.execute("COMMIT")
    return found, left_out


def heads(connection: Connection, schemas: Sequence[str] = (), *, every: bool = False) -> list[Head]:
    """Return name and kind of the relations in `schemas` (by default, in all but the system's), without partitions.

    Args:
        every: include all schemas and partitions.
    """
    with connection.cursor() as cursor:
        cursor.execute(_HEADS, [every, *[list(schemas) or None] * 2])
        return [
            Head(oid, bytes(schema).decode("utf-8", "replace"), bytes(name).decode("utf-8", "replace"), *rest)
            for oid, schema, name, *rest in cursor.fetchall()
        ]


def describe(connection: Connection, oids: Sequence[int]) -> tuple[list[Relation], list[Undescribed]]:
    """Return the relations `oids`, sorted by name, and the ones it can't describe. Needs an open transaction."""
    left_out: list[Undescribed] = []
    found = _describe(connection, list(oids), left_out)
    return sorted(found, key=lambda relation: (relation.schema, relation.name)), left_out


def _describe(connection: Connection, oids: list[int], left_out: list[Undescribed]) -> list[Relation]:
    """Return the relations `oids`. If one of many can't be described, try each half by itself."""
    from singer_postgres.core.driver_errors import keeps_session  # noqa: PLC0415 - not everyone who asks for one relation has it

    with connection.cursor() as cursor:
        cursor.execute("SAVEPOINT described")
        try:
            return _find(connection, "c.oid = any(%s::bigint[]::oid[])", [oids], missing_values=False)
        except Exception as error:
            # an error of either driver, as everywhere here
            if not keeps_session(error):
                raise
            cursor.execute("ROLLBACK TO SAVEPOINT described")
            if len(oids) == 1:
                cursor.execute(_ESCAPED_NAME, oids)
                row = cursor.fetchone()
                name = row[0] if row else f"oid {oids[0]}"
                left_out.append(Undescribed(oids[0], name, one_line(error)))
                return []
    middle = len(oids) // 2
    return [
        *_describe(connection, oids[:middle], left_out),
        *_describe(connection, oids[middle:], left_out),
    ]


def find(connection: Connection, schema: str, name: str) -> Relation | None:
    """Return one relation, with its leaves if rows can be read by block; None if it doesn't exist."""
    found = _find(connection, "n.nspname = %s and c.relname = %s", [schema, name])
    if not found:
        return None
    (relation,) = found
    if relation.kind not in "rp" or relation.inherited:
        return relation
    partitioned = relation.kind == "p"
    with connection.cursor() as cursor:
        cursor.execute(_LEAVES, [relation.oid, partitioned, relation.oid, partitioned])
        rows = cursor.fetchall()
    if any(row[-1] != "r" or not row[-2] for row in rows):
        # a foreign partition has no blocks; a partition that the role can't read itself is read through its parent
        return relation
    return replace(relation, leaves=tuple(Leaf(*row[:-1]) for row in rows))


_WHEREABOUTS = """
    select n.nspname || '.' || c.relname, n.nspname || '-' || c.relname = %s, c.relispartition
    from pg_catalog.pg_class c join pg_catalog.pg_namespace n on n.oid = c.relnamespace
    where c.relkind in ('r', 'p', 'v', 'm', 'f') and (n.nspname || '-' || c.relname = %s or c.oid = %s::bigint::oid)
    order by 2 desc limit 1
"""


def why_missing(connection: Connection, stream: str, oid: int) -> str:
    """Return why the catalog lacks a selected stream.

    Args:
        oid: the oid of its table when it was last read; 0 if unknown.
    """
    with connection.cursor() as cursor:
        cursor.execute(_WHEREABOUTS, [stream, stream, oid])
        row = cursor.fetchone()
    if row is None:
        return (
            f"{stream} is selected, and the source has no such table (SCHEMA-TABLE): it was dropped, or never "
            "existed. Create it, or remove it from `select`."
        )
    name, is_here, is_partition = row
    if not is_here:
        return f"{stream} is selected, and its table is called {name} now: rename it back, or correct `select`."
    if is_partition:
        return f"{stream} is selected, and {name} is a partition, which is read as part of its table: select that."
    return (
        f"{stream} is selected, and {name} is not in the catalog: its schema is not in filter_schemas, or discovery "
        "could not describe it and said why."
    )


def _find(
    connection: Connection, condition: str, parameters: Sequence[Any], *, missing_values: bool = True
) -> list[Relation]:
    """Return the relations that meet a condition.

    Args:
        missing_values: also read the missing values of columns; their type's output function may fail.
    """
    with connection.cursor() as cursor:
        cursor.execute(_RELATIONS.format(condition=condition), parameters)
        heads = cursor.fetchall()
        oids = [head[0] for head in heads]
        cursor.execute(
            _COLUMNS.format(missing_value=_MISSING_VALUE if missing_values else "null, true", unproven=UNPROVEN), [oids]
        )
        attributes = cursor.fetchall()
        cursor.execute(_TYPES, [sorted({attribute[2] for attribute in attributes})])
        types = {row[0]: Type(*row) for row in cursor.fetchall()}
        cursor.execute(_KEYS.format(unproven=UNPROVEN), [oids])
        keys: dict[int, list[str]] = dict(cursor.fetchall())
    columns = _columns(attributes, types)
    found = []
    for oid, schema, name, kind, rows, inherited, hides_rows, seen in heads:
        # tables that inherit from this one can repeat its key
        key = () if inherited else tuple(keys.get(oid, ()))
        parts = tuple(columns.get(oid, ()))
        found.append(Relation(oid, schema, name, kind, rows, inherited, hides_rows, parts, key, seen=seen))
    return found


def column_types(connection: Connection, columns: Sequence[tuple[int, int]]) -> list[tuple[str, TargetType]]:
    """Return each column's declared type and its type in the warehouse.

    Args:
        columns: the oid of each column's type, and its modifier.
    """
    with connection.cursor() as cursor:
        cursor.execute(_TYPES, [sorted({oid for oid, _ in columns})])
        types = {row[0]: Type(*row) for row in cursor.fetchall()}
        cursor.execute(
            "select pg_catalog.format_type(oid, modifier) from unnest(%s::bigint[]::oid[], %s::integer[]) "
            "with ordinality each(oid, modifier, number) order by number",
            [[oid for oid, _ in columns], [modifier for _, modifier in columns]],
        )
        declared = [row[0] for row in cursor.fetchall()]
    return [(text, target_type(oid, text, types)) for text, (oid, _) in zip(declared, columns, strict=True)]


def _columns(attributes: Iterable[tuple[Any, ...]], types: dict[int, Type]) -> dict[int, list[Column]]:
    columns: dict[int, list[Column]] = {}
    for relation, name, type_, declared, *rest in attributes:
        columns.setdefault(relation, []).append(Column(name, declared, target_type(type_, declared, types), *rest))
    return columns
