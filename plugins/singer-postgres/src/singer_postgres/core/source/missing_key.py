"""Says why a table has no key that identifies its rows, and what to do about it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from singer_postgres.core.source.relations import KINDS, UNPROVEN
from singer_postgres.core.sql_compat import quoted

if TYPE_CHECKING:
    from psycopg2.extensions import connection as Connection  # noqa: N812

    from singer_postgres.core.source.relations import Relation

# unique indexes, the ones closest to a key first
_UNIQUE = f"""
    select n.nspname, c.relname, i.indisvalid, i.indexprs is not null, i.indpred is not null,
        array(
            select a.attname::text from unnest(i.indkey::int2[]) with ordinality k(attnum, position)
            join pg_catalog.pg_attribute a on a.attrelid = i.indrelid and a.attnum = k.attnum
            where k.position <= i.indnkeyatts and not a.attnotnull order by k.position
        ),
        array(
            select u.conname::text from unnest(i.indkey::int2[]) with ordinality k(attnum, position)
            join pg_catalog.pg_attribute a on a.attrelid = i.indrelid and a.attnum = k.attnum
            join pg_catalog.pg_constraint u on u.conrelid = a.attrelid and u.conkey[1] = a.attnum and u.contype = 'n'
            where k.position <= i.indnkeyatts and a.attnum = any({UNPROVEN}) order by k.position
        )
    from pg_catalog.pg_index i
    join pg_catalog.pg_class c on c.oid = i.indexrelid join pg_catalog.pg_namespace n on n.oid = c.relnamespace
    where i.indrelid = %s::bigint::oid and i.indisunique
    order by i.indpred is not null, i.indexprs is not null, i.indisvalid desc, i.indnkeyatts, i.indexrelid
    limit 1
"""  # noqa: S608 - of constants
# the nearest ancestor that has a primary key
_ABOVE = """
    with recursive above(oid, steps) as (
        select inhparent, 1 from pg_catalog.pg_inherits where inhrelid = %s::bigint::oid
        union
        select inhparent, steps + 1 from above join pg_catalog.pg_inherits on inhrelid = above.oid
    )
    select n.nspname || '.' || c.relname, array(
        select a.attname::text from unnest(i.indkey::int2[]) with ordinality k(attnum, position)
        join pg_catalog.pg_attribute a on a.attrelid = i.indrelid and a.attnum = k.attnum
        where k.position <= i.indnkeyatts order by k.position
    )
    from above join pg_catalog.pg_class c using (oid) join pg_catalog.pg_namespace n on n.oid = c.relnamespace
    join pg_catalog.pg_index i on i.indrelid = c.oid and i.indisprimary
    order by steps limit 1
"""
_OWN = """
    select a.attname::text from pg_catalog.pg_index i
    cross join lateral unnest(i.indkey::int2[]) with ordinality k(attnum, position)
    join pg_catalog.pg_attribute a on a.attrelid = i.indrelid and a.attnum = k.attnum
    where i.indrelid = %s::bigint::oid and i.indisprimary and k.position <= i.indnkeyatts order by k.position
"""


class _Unique(NamedTuple):
    """A unique index: a row of `_UNIQUE`."""

    schema: str
    name: str
    valid: bool
    of_expression: bool
    partial: bool
    nullable: list[str]
    unproven: list[str]


@dataclass(frozen=True)
class MissingKey:
    """Why a relation has no key.

    Attributes:
        why: the reason, as the end of a sentence; empty if no index comes close to a key.
        declared: only `table-key-properties` can give the relation a key.
        statements: SQL statements that create a key, without semicolons.
    """

    why: str = ""
    declared: bool = False
    statements: tuple[str, ...] = ()

    def advice(self) -> str:
        """Return what to do, as the beginning of a sentence."""
        if self.declared:
            return "Name the columns that identify its rows in its `metadata` (table-key-properties: [COLUMN])"
        if self.statements:
            return f"Give it one ({'; '.join(self.statements)})"
        return "Give the table one"


def missing_key(connection: Connection, relation: Relation) -> MissingKey:
    """Return the reason why a relation without a key has none."""
    if relation.kind not in "rp":
        return MissingKey(f"a {KINDS[relation.kind]} has none of its own", declared=True)
    with connection.cursor() as cursor:
        if relation.inherited:
            cursor.execute(_OWN, [relation.oid])
            names = ", ".join(name for (name,) in cursor.fetchall())
            whose = f"its key ({names})" if names else "its values"
            return MissingKey(f"tables that inherit from it are read with it, and may repeat {whose}", declared=True)
        cursor.execute(_UNIQUE, [relation.oid])
        unique = cursor.fetchone()
        cursor.execute(_ABOVE, [relation.oid])
        above = cursor.fetchone()
    table = quoted(relation.schema, relation.name)
    near = _Unique(*unique) if unique else None
    if near and not (near.of_expression or near.partial):
        return _missing(table, near, partitioned=relation.kind == "p")
    if above:
        names = ", ".join(map(quoted, above[1]))
        return MissingKey(
            f"it inherits from {above[0]}, whose primary key ({', '.join(above[1])}) does not hold for its rows",
            statements=(f"ALTER TABLE {table} ADD PRIMARY KEY ({names})",),
        )
    if near:
        what = "is on an expression" if near.of_expression else "covers only some of its rows"
        return MissingKey(f"its unique index {near.name} {what}")
    return MissingKey()


def _missing(table: str, near: _Unique, *, partitioned: bool) -> MissingKey:
    """Return what a unique index of plain columns lacks to be a key."""
    whys, statements = [], []
    if near.nullable:
        whys.append(f"{', '.join(near.nullable)} could not be null")
        statements += [f"ALTER TABLE {table} ALTER COLUMN {quoted(name)} SET NOT NULL" for name in near.nullable]
    if near.unproven:
        whys.append(f"constraint {', '.join(near.unproven)} were not NOT VALID")
        statements += [f"ALTER TABLE {table} VALIDATE CONSTRAINT {quoted(name)}" for name in near.unproven]
    if not near.valid:
        whys.append("it were valid")
        # a partitioned table's index becomes valid once each partition has its part
        statements += [] if partitioned else [f"REINDEX INDEX CONCURRENTLY {quoted(near.schema, near.name)}"]
    return MissingKey(f"its unique index {near.name} would do if {' and '.join(whys)}", statements=tuple(statements))
