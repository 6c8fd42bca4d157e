"""What a table of the source is made of, read from its catalogs in one query a thing."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from singer_postgres.core.errors import one_line
from singer_postgres.core.types import TargetType, Type, target_type

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from psycopg2.extensions import connection as Connection  # noqa: N812

    from singer_postgres.core.source.selection import SelectedStreams

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
    """What rows hold in it that were there before it was added, as its type writes it, unless written anew since."""
    readable: bool = True
    """The role that asks may read it."""


@dataclass(frozen=True)
class Leaf:
    """A plain table that holds rows: the relation itself, or one of its partitions."""

    oid: int
    schema: str
    name: str
    relfilenode: int
    blocks: int
    bytes: int
    readable: bool


@dataclass(frozen=True)
class Relation:
    """A table, view or the like."""

    oid: int
    schema: str
    name: str
    kind: str
    rows: float = field(compare=False)
    """The planner's estimate; negative if it has none."""
    inherited: bool
    """Other tables, not partitions, inherit from it: reading it reads them, and a key may repeat."""
    hides_rows: bool
    """Row-level security applies to the role that reads."""
    columns: tuple[Column, ...] = ()
    key: tuple[str, ...] = ()
    leaves: tuple[Leaf, ...] = field(default=(), compare=False)
    seen: str | None = field(default=None, compare=False)
    """A transaction id: the snapshot that this was read under sees all that is older."""

    @property
    def max_attnum(self) -> int:
        """The largest number of a column."""
        return max((column.attnum for column in self.columns), default=0)

    def __str__(self) -> str:
        return f"{self.schema}.{self.name}"


# names as bytes: where text is any bytes, there may be some that are no UTF-8
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
        attnotnull and attnum <> all({unproven}), attnum, {past}
    from pg_catalog.pg_attribute a
    where attrelid = any(%s::bigint[]::oid[]) and attnum > 0 and not attisdropped
    order by attrelid, attnum
"""
# columns that are NOT NULL NOT VALID (from 18 on): rows of before may hold nulls
UNPROVEN = """array(
    select conkey[1] from pg_catalog.pg_constraint where conrelid = a.attrelid and contype = 'n' and not convalidated
)"""
# an array of one, whose type only the array itself knows
_PAST = """
        case when atthasmissing then pg_catalog.array_to_string(attmissingval, '') end,
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
        -- name, point and the like have elements too, and are no arrays
        case when t.typcategory = 'A' and t.typlen = -1 then t.typelem else 0 end::bigint,
        t.typbasetype::bigint, pg_catalog.format_type(t.typbasetype, t.typtypmod), t.typdelim::text
    from wanted join pg_catalog.pg_type t using (oid)
"""
# the primary key, or else a unique index that is as good: whole, of columns that can't be null. What is deferrable is
# true of all that is committed, which is all that a snapshot sees; what is immediate goes first.
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
    """A relation's name and kind; in the name, bytes that are no UTF-8 are replaced."""

    oid: int
    schema: str
    name: str
    kind: str
    is_partition: bool


@dataclass(frozen=True)
class Undescribed:
    """A relation that can't be described.

    Attributes:
        name: with bytes that are no ASCII escaped.
        why: what the server says.
    """

    oid: int
    name: str
    why: str

    def __str__(self) -> str:
        return f"{self.name} is left out of the catalog, as it can't be described: {self.why}"


def in_schemas(
    connection: Connection, schemas: Sequence[str], *, wanted: SelectedStreams | None = None
) -> tuple[list[Relation], list[Undescribed]]:
    """Return all relations of `schemas`, or of all schemas but the system's, and those that can't be described.

    Partitions are part of their table.

    Args:
        wanted: leave out what it does not match.
    """
    with connection.cursor() as cursor:
        # in several snapshots, a table would have columns of types that are gone
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
    """Return what relations `schemas` have, or all schemas but the system's, without partitions.

    Args:
        every: those of all schemas, and partitions.
    """
    with connection.cursor() as cursor:
        cursor.execute(_HEADS, [every, *[list(schemas) or None] * 2])
        return [
            Head(oid, bytes(schema).decode("utf-8", "replace"), bytes(name).decode("utf-8", "replace"), *rest)
            for oid, schema, name, *rest in cursor.fetchall()
        ]


def describe(connection: Connection, oids: Sequence[int]) -> tuple[list[Relation], list[Undescribed]]:
    """Return the relations `oids`, by name, and those that can't be described. In a transaction of the caller's."""
    left_out: list[Undescribed] = []
    found = _describe(connection, list(oids), left_out)
    return sorted(found, key=lambda relation: (relation.schema, relation.name)), left_out


def _describe(connection: Connection, oids: list[int], left_out: list[Undescribed]) -> list[Relation]:
    """Return the relations `oids`; of many, each half by itself where there is one that can't be described."""
    from singer_postgres.core.driver_errors import keeps_session  # noqa: PLC0415 - not everyone who asks for one relation has it

    with connection.cursor() as cursor:
        cursor.execute("SAVEPOINT described")
        try:
            return _find(connection, "c.oid = any(%s::bigint[]::oid[])", [oids], past=False)
        except Exception as error:
            # of either driver, as all here
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
    """Return one relation, with its leaves if rows can be found by block in it; None if there is none."""
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
        # a foreign partition has no blocks, and one that the role can't read by itself is read through its parent
        return relation
    return replace(relation, leaves=tuple(Leaf(*row[:-1]) for row in rows))


_WHEREABOUTS = """
    select n.nspname || '.' || c.relname, n.nspname || '-' || c.relname = %s, c.relispartition
    from pg_catalog.pg_class c join pg_catalog.pg_namespace n on n.oid = c.relnamespace
    where c.relkind in ('r', 'p', 'v', 'm', 'f') and (n.nspname || '-' || c.relname = %s or c.oid = %s::bigint::oid)
    order by 2 desc limit 1
"""


def why_missing(connection: Connection, stream: str, oid: int) -> str:
    """Return why the catalog lacks a stream that is selected.

    Args:
        oid: of its table when it was read last; 0 if that is not known.
    """
    with connection.cursor() as cursor:
        cursor.execute(_WHEREABOUTS, [stream, stream, oid])
        row = cursor.fetchone()
    if row is None:
        return (
            f"{stream} is selected, and the source has no such table (SCHEMA-TABLE): it was dropped, or was never "
            "there. Make it, or take it out of `select`."
        )
    name, is_here, is_partition = row
    if not is_here:
        return f"{stream} is selected, and its table is called {name} now: rename it back, or correct `select`."
    if is_partition:
        return f"{stream} is selected, and {name} is a partition, which is read as part of its table: select that."
    return (
        f"{stream} is selected, and {name} is not in the catalog: its schema is not in filter_schemas, or it can't be "
        "described, which discovery says."
    )


def _find(connection: Connection, condition: str, parameters: Sequence[Any], *, past: bool = True) -> list[Relation]:
    """Return the relations that meet a condition.

    Args:
        past: say what rows hold that are older than a column; made by its type's own function, which may raise.
    """
    with connection.cursor() as cursor:
        cursor.execute(_RELATIONS.format(condition=condition), parameters)
        heads = cursor.fetchall()
        oids = [head[0] for head in heads]
        cursor.execute(_COLUMNS.format(past=_PAST if past else "null, true", unproven=UNPROVEN), [oids])
        attributes = cursor.fetchall()
        cursor.execute(_TYPES, [sorted({attribute[2] for attribute in attributes})])
        types = {row[0]: Type(*row) for row in cursor.fetchall()}
        cursor.execute(_KEYS.format(unproven=UNPROVEN), [oids])
        keys: dict[int, list[str]] = dict(cursor.fetchall())
    columns = _columns(attributes, types)
    found = []
    for oid, schema, name, kind, rows, inherited, hides_rows, seen in heads:
        # children of an inheritance parent can hold its key again
        key = () if inherited else tuple(keys.get(oid, ()))
        parts = tuple(columns.get(oid, ()))
        found.append(Relation(oid, schema, name, kind, rows, inherited, hides_rows, parts, key, seen=seen))
    return found


def _columns(attributes: Iterable[tuple[Any, ...]], types: dict[int, Type]) -> dict[int, list[Column]]:
    columns: dict[int, list[Column]] = {}
    for relation, name, type_, declared, *rest in attributes:
        columns.setdefault(relation, []).append(Column(name, declared, target_type(type_, declared, types), *rest))
    return columns
