"""Turns the changes of one table into rows of COPY, for the target's stage.

A row has what `change_columns` lists, and then the stream's columns. An update of a row's key becomes two rows: one
deletes the old key, the other has the new values and knows the old key, by which unchanged TOASTed values are found.
"""

from __future__ import annotations

import re
import struct
from typing import TYPE_CHECKING

from singer_postgres.core.change_columns import DELETE, TRUNCATE, UPSERT
from singer_postgres.core.errors import LogUnfitError
from singer_postgres.core.source import pgoutput
from singer_postgres.core.sql_compat import quoted

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from singer_postgres.core.source.pgoutput import RelationMessage

_NULL_BINARY, _NULL_TEXT = b"\xff\xff\xff\xff", b"\\N"
# the number of fields, and the first four, which are never null: smallint, and three bigint
_head = struct.Struct(">hihiqiqiq").pack
_int2_array = struct.Struct(">iiiii").pack
_INT2_OID = 21
_special = re.compile(rb"[\\\t\n\r]").search


class ChangeRows:
    """Writes the changes of one table, as it is described by one Relation message.

    Attributes:
        has_unchanged, has_moved, has_truncated: what the rows since the last file had; see `wire.Changes`.
    """

    def __init__(
        self,
        relation: RelationMessage,
        columns: Sequence[str],
        key: Sequence[str],
        *,
        binary: bool,
        masks: Mapping[str, Callable[[bytes], bytes | None]],
    ) -> None:
        """Prepare for a table.

        Args:
            columns: the stream's columns, in the order of the stage.
            key: the columns that identify a row.
            binary: the session is binary, and so are the rows.
            masks: by column, a function that masks a value without its length; it returns None for a null.
        """
        self._relation = relation
        names = [column.name for column in relation.columns]
        self._wanted = [names.index(name) for name in columns]
        self._is_all = self._wanted == list(range(len(names)))
        self._key = [names.index(name) for name in key]
        self._numbers = {index: number for number, index in enumerate(self._wanted, 1)}
        self._masks = {names.index(name): mask for name, mask in masks.items() if name in names}
        self._binary = binary
        self._null = _NULL_BINARY if binary else _NULL_TEXT
        self._no_old_key = [self._null] * len(key)
        self._only_key = [index in self._key for index in range(len(names))]
        self._fields = 5 + len(key) + len(columns)
        self.has_unchanged = self.has_moved = self.has_truncated = False

    def insert(self, message: bytes, lsn: int, at: int, number: int) -> bytes:
        """Return the row of an INSERT.

        Raises:
            LogUnfitError: it lacks a value. An UPDATE by which a row comes to meet the publication's condition is sent
                as an INSERT, without TOASTed values that did not change.
        """
        unchanged: list[int] = []
        values, _ = pgoutput.tuple_at(message, 6, self._null, unchanged)
        if unchanged and not self._numbers.keys().isdisjoint(unchanged):
            raise incomplete(self._relation)
        return self._row(UPSERT, lsn, at, number, values)

    def update(self, message: bytes, lsn: int, at: int, number: int) -> bytes:
        """Return the row of an UPDATE, or both rows if it changed the key."""
        kind, start = pgoutput.first_tuple(message)
        old: list[bytes] | None = None
        if kind != pgoutput.NEW:
            old, start = pgoutput.tuple_at(message, start, self._null, [])
            # the kind of the new values
            start += 1
        unchanged: list[int] = []
        values, _ = pgoutput.tuple_at(message, start, self._null, unchanged)
        if old is not None and all(old[index] == values[index] for index in self._key):
            # REPLICA IDENTITY FULL has all old values
            old = None
        if old is None:
            return self._row(UPSERT, lsn, at, number, values, unchanged)
        self.has_moved = True
        return self._deletion(old, lsn, at, number) + self._row(UPSERT, lsn, at, number, values, unchanged, old)

    def delete(self, message: bytes, lsn: int, at: int, number: int) -> bytes:
        """Return the row of a DELETE."""
        old, _ = pgoutput.tuple_at(message, 6, self._null, [])
        return self._deletion(old, lsn, at, number)

    def truncate(self, lsn: int, at: int, number: int) -> bytes:
        """Return the row of a TRUNCATE."""
        self.has_truncated = True
        return self._row(TRUNCATE, lsn, at, number, [self._null] * len(self._only_key))

    def _deletion(self, old: list[bytes], lsn: int, at: int, number: int) -> bytes:
        keys = [value if is_key else self._null for value, is_key in zip(old, self._only_key, strict=True)]
        return self._row(DELETE, lsn, at, number, keys)

    def _row(  # noqa: PLR0913, PLR0917 - called for each change
        self,
        operation: int,
        lsn: int,
        at: int,
        number: int,
        values: list[bytes],
        unchanged: Sequence[int] = (),
        old: list[bytes] | None = None,
    ) -> bytes:
        if self._masks:
            values = self._masked(values)
            old = self._masked(old) if old is not None else None
        data = values if self._is_all else [values[index] for index in self._wanted]
        old_key = self._no_old_key if old is None else [old[index] for index in self._key]
        numbers = [self._numbers[index] for index in unchanged if index in self._numbers] if unchanged else ()
        self.has_unchanged |= bool(numbers)
        if self._binary:
            head = _head(self._fields, 2, operation, 8, lsn, 8, at, 8, number)
            return b"".join([head, _binary_array(numbers) if numbers else _NULL_BINARY, *old_key, *data])
        array = b"{%s}" % b",".join(b"%d" % each for each in numbers) if numbers else _NULL_TEXT
        texts = [b"%d" % operation, b"%d" % lsn, b"%d" % at, b"%d" % number, array]
        for value in (*old_key, *data):
            texts.append(_escaped(value) if value is not _NULL_TEXT and _special(value) else value)  # noqa: PERF401 - as fast as it gets
        return b"\t".join(texts) + b"\n"

    def _masked(self, values: list[bytes]) -> list[bytes]:
        values = list(values)
        for index, mask in self._masks.items():
            if values[index] is self._null:
                continue
            masked = mask(values[index][4:] if self._binary else values[index])
            if masked is None:
                values[index] = self._null
            else:
                values[index] = struct.pack(">I", len(masked)) + masked if self._binary else masked
        return values


def incomplete(relation: RelationMessage) -> LogUnfitError:
    """Return the error for an INSERT that lacks values."""
    msg = (
        f"A row of {relation.schema}.{relation.name} came to meet the stream's condition (where), and the log lacks "
        f"its large values that did not change: ALTER TABLE {quoted(relation.schema, relation.name)} REPLICA IDENTITY "
        f"FULL; and load it again, `tidemark state rewind {relation.schema}-{relation.name} --to beginning`."
    )
    return LogUnfitError(msg)


def _binary_array(numbers: Sequence[int]) -> bytes:
    """Return a smallint[] in binary form, with its length."""
    # one dimension, no nulls, the elements' type, their number, the first index
    body = _int2_array(1, 0, _INT2_OID, len(numbers), 1) + b"".join(struct.pack(">ih", 2, each) for each in numbers)
    return struct.pack(">I", len(body)) + body


def _escaped(value: bytes) -> bytes:
    return value.replace(b"\\", b"\\\\").replace(b"\t", b"\\t").replace(b"\n", b"\\n").replace(b"\r", b"\\r")
