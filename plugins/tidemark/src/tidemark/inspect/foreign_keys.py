"""Reads foreign keys, and finds those whose two sides are not masked alike: no join of them would find a row."""

from __future__ import annotations

import json
import re
from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping

    import psycopg

# a foreign key to a partition counts as one to its table; those that PostgreSQL adds for partitions are left out
QUERY = """
    select k.conrelid::bigint, k.conname, n.nspname, c.relname, k.convalidated, array(
        select a.attname::text from unnest(k.conkey) with ordinality u(attnum, position)
        join pg_catalog.pg_attribute a on a.attrelid = k.conrelid and a.attnum = u.attnum order by u.position
    ), array(
        select a.attname::text from unnest(k.confkey) with ordinality u(attnum, position)
        join pg_catalog.pg_attribute a on a.attrelid = k.confrelid and a.attnum = u.attnum order by u.position
    )
    from pg_catalog.pg_constraint k
    join pg_catalog.pg_class c on c.oid = coalesce(pg_catalog.pg_partition_root(k.confrelid), k.confrelid)
    join pg_catalog.pg_namespace n on n.oid = c.relnamespace
    where k.contype = 'f' and k.conparentid = 0 and k.conrelid = any(%s::bigint[]::oid[])
    order by k.conrelid, k.conname
"""
# what every warning says, and no other
NO_JOIN = "a join of both finds no row"
# the only mask that keeps equal values equal
_JOINS = "sha256"


@dataclass(frozen=True)
class ForeignKey:
    """A foreign key, with its columns in the order of those that it refers to."""

    name: str
    columns: tuple[str, ...]
    to_schema: str
    to_table: str
    to_columns: tuple[str, ...]
    validated: bool = True

    @classmethod
    def of_row(cls, row: Iterable[Any]) -> ForeignKey:
        """Return the foreign key of a row of QUERY, without its first column."""
        name, schema, table, validated, own, other = row
        return cls(name, tuple(own), schema, table, tuple(other), validated)


@dataclass(frozen=True)
class MaskedTable:
    """A table that is read.

    Attributes:
        columns: the columns that are read.
        masks: their masks; a column without one is read as it is.
        foreign_keys: those that the table has.
    """

    stream: str
    columns: Collection[str]
    masks: Mapping[str, str] = field(default_factory=dict)
    foreign_keys: tuple[ForeignKey, ...] = ()


def read(connection: psycopg.Connection[Any], tables: Collection[int]) -> dict[int, tuple[ForeignKey, ...]]:
    """Return the foreign keys of tables, by the table's oid."""
    found: dict[int, list[ForeignKey]] = defaultdict(list)
    for table, *row in connection.execute(QUERY, [sorted(tables)]):
        found[table].append(ForeignKey.of_row(row))
    return {table: tuple(keys) for table, keys in found.items()}


def masked_apart(tables: Mapping[tuple[str, str], MaskedTable], path: str) -> Iterator[tuple[str, str]]:
    """Yield each stream with a foreign key whose sides are not masked alike, and a warning that says what to write.

    Args:
        tables: all tables that are read from a database, by schema and name.
        path: the file that has their masks.
    """
    for table in tables.values():
        for key in table.foreign_keys:
            other = tables.get((key.to_schema, key.to_table))
            if other and (what := _apart(table, other, key)):
                yield table.stream, f"{what} in {path}, or mask none of them"


def _apart(table: MaskedTable, other: MaskedTable, key: ForeignKey) -> str | None:
    joined, missing = [], dict[str, dict[str, str]]()
    for own, theirs in zip(key.columns, key.to_columns, strict=True):
        sides = ((table, own), (other, theirs))
        masks = [side.masks.get(column) for side, column in sides]
        if masks[0] == masks[1] or not all(column in side.columns for side, column in sides):
            continue
        joined.append(
            " with ".join(
                f"{side.stream}.{column} ({f'masked: {mask}' if mask else 'not masked'})"
                for (side, column), mask in zip(sides, masks, strict=True)
            )
        )
        for (side, column), mask in zip(sides, masks, strict=True):
            if mask != _JOINS:
                missing.setdefault(side.stream, {})[column] = _JOINS
    if not joined:
        return None
    wanted = ", ".join(
        f"{_name(stream)}: {{{', '.join(f'{_name(column)}: {mask}' for column, mask in columns.items())}}}"
        for stream, columns in missing.items()
    )
    what = f"foreign key {key.name} joins {' and '.join(joined)}, so {NO_JOIN}"
    return f"{what}: write `{wanted}` under `masks` of the tap's `config`"


def _name(name: str) -> str:
    """Return a stream's or a column's name as a key of `masks`, in which Meltano splits a name at each bare dot."""
    return name if re.fullmatch(r"[\w-]+", name) else json.dumps(name.replace(".", "\\."), ensure_ascii=False)
