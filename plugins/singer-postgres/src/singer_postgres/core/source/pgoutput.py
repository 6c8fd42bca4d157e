"""Parses the messages of pgoutput, protocol version 1. Pure: bytes in, values out.

Version 1 sends a transaction whole, when it has committed, so nothing has to be taken back, and the server spills a
large transaction to its own disk. Source: the documentation's "Logical Replication Message Formats", and
replication/logicalproto.c.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

# the first byte of a message
BEGIN, COMMIT, RELATION = ord("B"), ord("C"), ord("R")
INSERT, UPDATE, DELETE, TRUNCATE = ord("I"), ord("U"), ord("D"), ord("T")
# the kind of the tuple that follows: a row's old key, its old values, its new values
KEY, OLD, NEW = ord("K"), ord("O"), ord("N")
# the kind of a value: binary, text, null, or a TOASTed value that did not change
_BINARY, _TEXT, _NULL, _UNCHANGED = ord("b"), ord("t"), ord("n"), ord("u")
# a change belongs to the relation with this id
relation_id = struct.Struct(">xI").unpack_from
_begin = struct.Struct(">xQQI").unpack_from
_commit = struct.Struct(">xBQQQ").unpack_from
_length = struct.Struct(">I").unpack_from
_LENGTH_BYTES = 4
# a change's tag, its relation, and the kind of its first tuple
_FIRST_TUPLE = 5


@dataclass(frozen=True)
class Begin:
    """A transaction begins. All its changes follow, then its Commit.

    Attributes:
        commit_lsn: the position of its commit record. Transactions come in the order of these.
        committed_at: microseconds since 2000-01-01, UTC.
    """

    commit_lsn: int
    committed_at: int
    xid: int


@dataclass(frozen=True)
class Commit:
    """A transaction is over.

    Attributes:
        end_lsn: the position after its commit record, up to which everything may be confirmed.
    """

    end_lsn: int


@dataclass(frozen=True)
class RelationColumn:
    """A column as the stream describes it. It says neither attnum nor default."""

    name: str
    is_key: bool
    type_oid: int
    type_modifier: int


@dataclass(frozen=True)
class RelationMessage:
    """A table, sent before its first change in a session and after it was altered.

    Attributes:
        identity: REPLICA IDENTITY: d(efault), n(othing), f(ull) or i(ndex).
    """

    oid: int
    schema: str
    name: str
    identity: str
    columns: tuple[RelationColumn, ...]


def parse_begin(message: bytes) -> Begin:
    """Parse a Begin message."""
    return Begin(*_begin(message))


def parse_commit(message: bytes) -> Commit:
    """Parse a Commit message."""
    return Commit(_commit(message)[2])


def parse_relation(message: bytes) -> RelationMessage:
    """Parse a Relation message."""
    (oid,) = relation_id(message)
    schema, at = _text(message, 5)
    name, at = _text(message, at)
    identity, count = chr(message[at]), int.from_bytes(message[at + 1 : at + 3], "big")
    at += 3
    columns = []
    for _ in range(count):
        flags = message[at]
        column, at = _text(message, at + 1)
        type_oid, modifier = struct.unpack_from(">Ii", message, at)
        at += 8
        columns.append(RelationColumn(column, bool(flags & 1), type_oid, modifier))
    # the catalog's schema is sent without its name
    return RelationMessage(oid, schema or "pg_catalog", name, identity, tuple(columns))


def parse_truncate(message: bytes) -> tuple[int, ...]:
    """Return the ids of the truncated relations."""
    (count,) = _length(message, 1)
    # after the options, CASCADE and RESTART IDENTITY
    return struct.unpack_from(f">{count}I", message, 6)


def tuple_at(message: bytes, at: int, null: bytes, unchanged: list[int]) -> tuple[list[bytes], int]:
    """Parse a tuple.

    Args:
        at: where it begins, after the byte of its kind.
        null: what to return for a null, and for a TOASTed value that did not change.
        unchanged: receives the indexes of the latter.

    Returns:
        The values, binary ones with their length before them as in COPY's binary form; and where the tuple ends.
    """
    count = (message[at] << 8) | message[at + 1]
    at += 2
    values: list[bytes] = []
    append = values.append
    for index in range(count):
        kind = message[at]
        if kind == _BINARY:
            end = at + 5 + _length(message, at + 1)[0]
            append(message[at + 1 : end])
            at = end
        elif kind == _TEXT:
            end = at + 5 + _length(message, at + 1)[0]
            append(message[at + 5 : end])
            at = end
        else:
            append(null)
            if kind == _UNCHANGED:
                unchanged.append(index)
            at += 1
    return values, at


def first_tuple(message: bytes) -> tuple[int, int]:
    """Return the kind of a change's first tuple, and where it begins."""
    return message[_FIRST_TUPLE], _FIRST_TUPLE + 1


def _text(message: bytes, at: int) -> tuple[str, int]:
    end = message.index(0, at)
    return message[at:end].decode(), end + 1
