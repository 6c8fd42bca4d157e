"""Reads the pages of copied rows once more, soon after their commit.

The first reader of a page notes in it which rows are committed. If the server has checksums, that note goes to the WAL
as a whole page, unless the page was changed since the last checkpoint. So to build the key of a large table would write
the table into the WAL a second time. A count right after the commit finds the pages changed just now: it costs a tenth
of the COPY's time, and a first load writes two fifths less WAL.
"""

from __future__ import annotations

import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from psycopg import sql

if TYPE_CHECKING:
    from collections.abc import Iterator

    import psycopg

    Connection = psycopg.Connection[Any]

_LOGS_NOTES = "select 'on' in (current_setting('data_checksums'), current_setting('wal_log_hints'))"
# pages that one of several runs reads, 8 MiB
_STRIPE = 1024
_PAGES = "select pg_catalog.pg_relation_size({table}::regclass) / current_setting('block_size')::bigint"


class FreshPages:
    """The pages that several sessions append to one table. Each is read once."""

    def __init__(self, table: sql.Identifier, *, share: tuple[int, int] = (0, 1)) -> None:
        """Read nothing yet.

        Args:
            share: which of how many runs this is that append to the table.
        """
        self._table = table
        self._share = share
        self._before: int | None = None
        """Where the table ended at the last commit, if others append to it: their rows from before that are committed
        by the next one."""
        self._alone = threading.Lock()
        self._logs_notes: bool | None = None
        self._read: int | None = None
        """The pages before this one have been read, or were there before."""
        self._appending: list[int] = []
        """Where the table ended when each of the sessions began that append to it now."""

    @contextmanager
    def appended(self, connection: Connection) -> Iterator[None]:
        """Read the pages whose rows are committed once the `with` block has committed its own."""
        with self._alone:
            if self._logs_notes is None:
                self._logs_notes = connection.execute(_LOGS_NOTES).fetchone() == (True,)
            if self._logs_notes:
                began = self._end(connection)
                self._read = began if self._read is None else self._read
                self._appending.append(began)
        if not self._logs_notes:
            yield
            return
        try:
            yield
        finally:
            with self._alone:
                self._appending.remove(began)
        with self._alone:
            # the pages after that may hold rows that are not committed yet
            first = self._read or 0
            after = min(self._appending) if self._appending else self._end(connection)
            if self._share[1] > 1:
                self._before, after = after, first if self._before is None else self._before
            self._read = max(first, after)
        for begin, end in own_pages(first, after, self._share):
            connection.execute(
                sql.SQL("SELECT count(*) FROM {} WHERE ctid >= {}::tid AND ctid < {}::tid").format(
                    self._table, sql.Literal(f"({begin},0)"), sql.Literal(f"({end},0)")
                )
            )

    def _end(self, connection: Connection) -> int:
        """Return the number of the table's pages."""
        query = sql.SQL(_PAGES).format(table=sql.Literal(self._table.as_string(connection)))
        row = connection.execute(query).fetchone()
        assert row
        return int(row[0])


def own_pages(first: int, after: int, share: tuple[int, int]) -> list[tuple[int, int]]:
    """Return the ranges of pages from `first` on and before `after` that one of several runs reads."""
    own, count = share
    if count == 1:
        return [(first, after)] if after > first else []
    stripes = range(first // _STRIPE, -(-after // _STRIPE))
    return [
        (max(first, number * _STRIPE), min(after, (number + 1) * _STRIPE))
        for number in stripes
        if number % count == own and min(after, (number + 1) * _STRIPE) > max(first, number * _STRIPE)
    ]
