"""Splits the comparison of a raw table that is partitioned in ranges: one range after the other, on both sides.

Hashes of one range are compared at a time, and rows are read only in ranges that differ. What no range has is compared
too, as one more part. A source without an index that begins with the column would read its whole table for each
range, so it is compared in one piece.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from psycopg import sql

from singer_postgres.core.warehouse import partitions

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import psycopg

    from tidemark.inspect.reconcile.hash_queries import ComparedStream

    Connection = psycopg.Connection[Any]

_HAS_INDEX = """
    select exists (
        select from pg_catalog.pg_index i join pg_catalog.pg_attribute a
            on a.attrelid = i.indrelid and a.attnum = i.indkey[0]
        where i.indrelid = %s::oid and a.attname = %s and i.indisvalid and i.indpred is null
    )
"""


def parts(source: Connection, warehouse: Connection, pair: ComparedStream) -> list[ComparedStream]:
    """Return the comparisons that make up the comparison of a stream."""
    table, column = pair.selection.relation, pair.partition_column
    if column is None or column in pair.selection.masks:
        return [pair]
    found_as = partitions.find(warehouse, pair.schema, table.name)
    ranges = partitions.ranges(warehouse, pair.schema, table.name, found_as) if found_as else []
    if len(ranges) < 2 or source.execute(_HAS_INDEX, [table.oid, column]).fetchone() != (True,):  # noqa: PLR2004 - no parts
        return [pair]
    name = sql.Identifier(column)
    inside = [_between(name, lower, upper) for lower, upper in ranges]
    outside = sql.SQL("({})").format(sql.SQL(" OR ").join(_outside(name, ranges)))
    return [_limited(pair, condition) for condition in (*inside, outside)]


def _limited(pair: ComparedStream, condition: sql.Composable) -> ComparedStream:
    both = pair.since or (None, None)
    there, here = (sql.SQL(" AND ").join([condition, each]) if each else condition for each in both)
    return replace(pair, since=(there, here))


def _between(name: sql.Identifier, lower: str | None, upper: str | None) -> sql.Composable:
    ends = [sql.SQL("{} >= {}").format(name, sql.Literal(lower))] if lower is not None else []
    ends += [sql.SQL("{} < {}").format(name, sql.Literal(upper))] if upper is not None else []
    return sql.SQL(" AND ").join(ends) if ends else sql.SQL("true")


def _outside(name: sql.Identifier, ranges: Sequence[tuple[str | None, str | None]]) -> Iterator[sql.Composable]:
    """Yield the conditions that a value is before, between or after the ranges, which are sorted."""
    yield sql.SQL("false")
    if ranges[0][0] is not None:
        yield _between(name, None, ranges[0][0])
    for (_, end), (start, _) in pairwise(ranges):
        if end != start:
            yield _between(name, end, start)
    if ranges[-1][1] is not None:
        yield _between(name, ranges[-1][1], None)
