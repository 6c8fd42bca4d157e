"""Limits of rows and tables that the source meets, but the warehouse doesn't, because it adds columns of its own."""

from __future__ import annotations

from typing import TYPE_CHECKING

from singer_postgres.core.errors import LimitExceededError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from psycopg2.extensions import connection as Connection  # noqa: N812

    from singer_postgres.core.source.relations import Column, Relation

# https://www.postgresql.org/docs/current/limits.html; the row size is MaxHeapTupleSize with pages of 8 KiB
_COLUMNS, _ROW_BYTES = 1600, 8160
# the target's `METADATA`: in a new row, six of the eight columns take eight bytes each, and two are null
_OWN_COLUMNS, _OWN_BYTES = 8, 48
# fewer columns can't fill a row: the widest type that isn't moved out of it has 64 bytes, or is a short text
_FEW = 100
_ALIGNMENTS = {"c": 1, "s": 2, "i": 4, "d": 8}
_LENGTHS = """
    select attnum, attlen, attalign::text from pg_catalog.pg_attribute
    where attrelid = %s::bigint::oid and attnum > 0 and not attisdropped
"""


def refuse(connection: Connection, relation: Relation, columns: Sequence[Column], masks: Mapping[str, str]) -> None:
    """Raise if no table in the warehouse could have `columns`, or no row of it could fit.

    Raises:
        SingerPostgresError: the table or the row is too wide, whatever the values are.
    """
    if not columns:
        msg = f"{relation} has no column to read; remove it from `select`, or select some of its columns."
        raise LimitExceededError(msg)
    most = _COLUMNS - _OWN_COLUMNS
    if len(columns) > most:
        msg = (
            f"{relation} has {len(columns):,} selected columns, and the warehouse adds {_OWN_COLUMNS}; a table can "
            f"have {_COLUMNS:,} at most. Deselect {len(columns) - most:,} or more."
        )
        raise LimitExceededError(msg)
    if len(columns) <= _FEW:
        return
    with connection.cursor() as cursor:
        cursor.execute(_LENGTHS, [relation.oid])
        lengths = {number: (length, _ALIGNMENTS[alignment]) for number, length, alignment in cursor.fetchall()}
    least = _least_bytes(columns, masks, lengths)
    if least > _ROW_BYTES:
        msg = (
            f"{relation} has {len(columns):,} selected columns. With the {_OWN_COLUMNS} that the warehouse adds, they "
            f"take {least:,} bytes or more of a row, and {_ROW_BYTES:,} is the limit; deselect some."
        )
        raise LimitExceededError(msg)


def _least_bytes(columns: Sequence[Column], masks: Mapping[str, str], lengths: Mapping[int, tuple[int, int]]) -> int:
    """Return a row's minimal length. Nullable columns count as null, and values without a fixed length as one byte."""
    bitmap = (len(columns) + _OWN_COLUMNS + 7) // 8
    size = _up(23 + bitmap, 8)
    for column in columns:
        mask = masks.get(column.name)
        if not column.not_null or mask == "null":
            continue
        length, alignment = lengths.get(column.attnum, (-1, 1))
        if mask is not None or length < 0 or column.target_type.type == "text":
            size += 1
        else:
            size = _up(size, alignment) + length
    return _up(size, 8) + _OWN_BYTES


def _up(size: int, alignment: int) -> int:
    return -(-size // alignment) * alignment
