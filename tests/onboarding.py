"""A proposal for a source that a test made: what the catalogs say, and every table read by its simplest method."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from tidemark.onboard import identifiers
from tidemark.onboard.proposal import Method, Proposal, TableProposal
from tidemark.onboard.source_tables import ForeignKey, SourceColumn, SourceTable, ValueList

if TYPE_CHECKING:
    import psycopg

_TABLES = """
select c.oid::bigint, n.nspname, c.relname, c.relkind::text, c.reltuples, obj_description(c.oid, 'pg_class')
from pg_class c join pg_namespace n on n.oid = relnamespace
where relkind in ('r', 'p') and not relispartition and n.nspname !~ '^pg_|^information_schema$'
order by n.nspname, c.relname
"""
_COLUMNS = """
select attname, format_type(atttypid, atttypmod), t.typtype::text,
    case when t.typtype = 'd' then format_type(t.typbasetype, t.typtypmod) else format_type(atttypid, atttypmod) end,
    coalesce((select array_agg(enumlabel::text order by enumsortorder) from pg_enum
        where enumtypid in (atttypid, t.typbasetype)), '{}'),
    attnotnull, attgenerated <> '', col_description(attrelid, attnum)
from pg_attribute join pg_type t on t.oid = atttypid
where attrelid = %s and attnum > 0 and not attisdropped order by attnum
"""
_CONSTRAINTS = """
select conname, contype::text, convalidated, pg_get_constraintdef(c.oid),
    array(select attname::text from unnest(conkey) with ordinality k (n, i)
        join pg_attribute on attrelid = conrelid and attnum = n order by i),
    confrelid::bigint,
    array(select attname::text from unnest(confkey) with ordinality k (n, i)
        join pg_attribute on attrelid = confrelid and attnum = n order by i)
from pg_constraint c where conrelid = %s and contype in ('p', 'f', 'c') order by conname
"""


def propose(connection: psycopg.Connection[Any], source: str, **changes: dict[str, Any]) -> Proposal:
    """Return a proposal for all tables of a database.

    Args:
        changes: values of TableProposal, by the table's name.
    """
    heads = connection.execute(_TABLES).fetchall()
    paths = {oid: (schema, name) for oid, schema, name, *_ in heads}
    tables = [_table(connection, head, paths) for head in heads]
    found = []
    for table in tables:
        stamp = next((each.name for each in table.columns if each.name == "updated_at" and each.not_null), None)
        incremental = bool(stamp and table.key)
        own = TableProposal(
            table,
            Method.incremental if incremental else Method.full_table,
            "a trigger keeps it" if incremental else "it is small",
            replication_key=stamp if incremental else None,
            raw_name=table.name,
            model=f"stg_{source}__{identifiers.snake_case(table.name)}"[:63],
        )
        found.append(replace(own, **changes.get(table.name, {})))
    return Proposal(source, f"raw_{source}", tuple(found))


def _table(
    connection: psycopg.Connection[Any], head: tuple[Any, ...], paths: dict[int, tuple[str, str]]
) -> SourceTable:
    oid, schema, name, kind, rows, comment = head
    columns = tuple(
        SourceColumn(
            column,
            type_,
            base,
            typtype,
            tuple(labels),
            not_null,
            is_generated=generated,
            comment=described,
        )
        for column, type_, typtype, base, labels, not_null, generated, described in connection.execute(_COLUMNS, [oid])
    )
    key: tuple[str, ...] = ()
    references, lists = [], []
    for constraint, contype, validated, definition, own, parent, other in connection.execute(_CONSTRAINTS, [oid]):
        if contype == "p":
            key = tuple(own)
        elif contype == "f":
            references.append(ForeignKey(constraint, tuple(own), *paths[parent], tuple(other), validated))
        elif "ANY" in definition and len(own) == 1:
            values = re.findall(r"'((?:[^']|'')*)'", definition)
            lists.append(ValueList(own[0], tuple(value.replace("''", "'") for value in values)))
    return SourceTable(
        schema,
        name,
        kind,
        columns,
        oid,
        rows,
        comment=comment,
        key=key,
        has_primary_key=bool(key),
        foreign_keys=tuple(references),
        value_lists=tuple(lists),
    )
