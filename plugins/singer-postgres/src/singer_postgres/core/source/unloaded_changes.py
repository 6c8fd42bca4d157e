"""Looks into a slot, without moving it, for the rows that were changed after a position."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from singer_postgres.core.lsn import lsn_of
from singer_postgres.core.source import pgoutput
from singer_postgres.core.sql_compat import quoted

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import psycopg

    Key = tuple[str, ...]

# how long the server may take to write what a snapshot sees to its log, after asynchronous commits
_FLUSHED_WITHIN_S = 5.0
_POLL_S = 0.01
_PEEK = """
    select data from pg_catalog.pg_logical_slot_peek_binary_changes(
        %s, %s::pg_lsn, null, 'proto_version', '1', 'publication_names', %s
    )
"""


@dataclass
class ChangedRows:
    """The rows of one table that were changed.

    Attributes:
        keys: their keys before and after, as text that pgoutput writes.
        partial: those of them whose changes lack TOASTed values that did not change.
        truncated: any row may have been changed: the table was truncated, or its key had another name.
    """

    keys: set[Key] = field(default_factory=set)
    partial: set[Key] = field(default_factory=set)
    truncated: bool = False


def changed_rows(  # noqa: PLR0913 - each argument has a name
    connection: psycopg.Connection[tuple[object, ...]],
    *,
    slot: str,
    publication: str,
    table_oid: int,
    key: Sequence[str],
    after: str,
) -> ChangedRows:
    """Return the rows of a table that transactions changed which committed at or after a position, up to now.

    The slot must not be in use. The session's snapshot may be an older one.
    """
    found = ChangedRows()
    index: list[int] = []
    commit_lsn = 0
    for message in _peeked(connection, slot, publication):
        tag = message[0]
        if tag == pgoutput.BEGIN:
            commit_lsn = pgoutput.parse_begin(message).commit_lsn
        elif tag == pgoutput.RELATION:
            relation = pgoutput.parse_relation(message)
            if relation.oid == table_oid:
                names = [column.name for column in relation.columns]
                # a key column that had another name then: nothing tells which rows were changed
                found.truncated |= not set(key) <= set(names)
                index = [names.index(name) for name in key if name in names]
        elif commit_lsn < lsn_of(after):
            continue
        elif tag == pgoutput.TRUNCATE:
            found.truncated |= table_oid in pgoutput.parse_truncate(message)
        elif tag in {pgoutput.INSERT, pgoutput.UPDATE, pgoutput.DELETE} and pgoutput.relation_id(message) == (
            table_oid,
        ):
            _note(message, index, found)
    return found


def _peeked(connection: psycopg.Connection[tuple[object, ...]], slot: str, publication: str) -> Iterator[bytes]:
    deadline = time.monotonic() + _FLUSHED_WITHIN_S
    upto = None
    while True:
        row = connection.execute(
            "select pg_catalog.pg_current_wal_insert_lsn()::text, pg_catalog.pg_current_wal_flush_lsn()::text"
        ).fetchone()
        assert row
        upto = upto or str(row[0])
        if lsn_of(str(row[1])) >= lsn_of(upto) or time.monotonic() > deadline:
            break
        time.sleep(_POLL_S)
    with connection.transaction(), connection.cursor(name="tidemark_peek") as cursor:
        cursor.itersize = 10_000
        cursor.execute(_PEEK, [slot, upto, quoted(publication)])
        for (data,) in cursor:
            assert isinstance(data, bytes)
            yield data


def _note(message: bytes, index: Sequence[int], found: ChangedRows) -> None:
    kind, at = pgoutput.first_tuple(message)
    while True:
        unchanged: list[int] = []
        values, at = pgoutput.tuple_at(message, at, b"", unchanged)
        key = tuple(values[each].decode() for each in index)
        found.keys.add(key)
        if unchanged:
            found.partial.add(key)
        if kind == pgoutput.NEW or at >= len(message):
            return
        # after a row's old key or values, its new ones
        kind, at = message[at], at + 1
