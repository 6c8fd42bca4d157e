"""Finds the rows that differ between two databases: first by hashes of buckets, then row by row in unequal buckets.

Only hashes and keys travel here. Those of unequal buckets come in order, a piece at a time.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from psycopg import sql

from tidemark.errors import TidemarkError
from tidemark.inspect.reconcile import by_range
from tidemark.inspect.reconcile.hash_queries import pieces

if TYPE_CHECKING:
    from collections.abc import Iterator

    import psycopg

    from tidemark.inspect.reconcile.hash_queries import ComparedStream, Key

    Connection = psycopg.Connection[Any]

_ROWS_A_BUCKET = 2000
_MOST_BUCKETS = 2**16
# the keys of this many different rows fit into any machine's memory
_MOST_DIFFERENT = 1_000_000
_FETCHED_AT_ONCE = 20_000


@dataclass
class Difference:
    """The differences in one stream: keys of rows, or just counts for a stream without a key.

    Attributes:
        rows: the number of rows in the source and in the warehouse.
        pending: the number of different rows that the next run will load.
    """

    rows: tuple[int, int] = (0, 0)
    missing: list[Key] = field(default_factory=list)
    extra: list[Key] = field(default_factory=list)
    different: list[Key] = field(default_factory=list)
    pending: int = 0
    keyless: tuple[int, int] = (0, 0)

    @property
    def counts(self) -> tuple[int, int, int]:
        """The numbers of rows that the warehouse lacks, that only it has, and that have other values there."""
        return len(self.missing) + self.keyless[0], len(self.extra) + self.keyless[1], len(self.different)

    @property
    def equal(self) -> bool:
        """Whether both databases have the same rows, apart from those that the next run will load."""
        return not any(self.counts)


def compare(source: Connection, warehouse: Connection, pair: ComparedStream) -> Difference:
    """Return the differences. Both connections must hold the snapshots to compare.

    Raises:
        TidemarkError: too many rows differ.
    """
    parts = by_range.parts(source, warehouse, pair)
    found = Difference()
    for part in parts:
        _compare(source, warehouse, part, count=_bucket_count(source, pair, len(parts)), found=found)
    return found


def _compare(source: Connection, warehouse: Connection, pair: ComparedStream, *, count: int, found: Difference) -> None:
    """Add the differences of a part of the stream.

    Args:
        count: the number of buckets.
    """
    there, here = _both(
        (source, pair.buckets(pair.source_rows(), count)), (warehouse, pair.buckets(pair.raw_rows(), count))
    )
    sums_there, sums_here = ({row[0]: row[1:] for row in rows} for rows in (there, here))
    rows = (sum(row[1] for row in there), sum(row[1] for row in here))
    found.rows = (found.rows[0] + rows[0], found.rows[1] + rows[1])
    unequal = sorted(b for b in sums_there.keys() | sums_here.keys() if sums_there.get(b) != sums_here.get(b))
    if not unequal:
        return
    streams = (
        _streamed(source, pair.narrowed(pair.source_rows(), count, unequal)),
        _streamed(warehouse, pair.narrowed(pair.raw_rows(), count, unequal)),
    )
    if pair.key:
        _merge(*streams, width=len(pair.key), found=found)
    else:
        found.keyless = _counted(*streams)


def _bucket_count(connection: Connection, pair: ComparedStream, parts: int) -> int:
    """Return how many buckets each part of the stream gets."""
    rows = max(pair.selection.relation.rows, 0)
    if not rows:
        # the table was never analysed, or it is a view
        plan = connection.execute(sql.SQL("EXPLAIN (FORMAT JSON) ") + pair.source_rows()).fetchone()
        rows = plan[0][0]["Plan"]["Plan Rows"] if plan else 0
    count = 1
    while count < _MOST_BUCKETS and count * _ROWS_A_BUCKET * parts < rows:
        count *= 2
    return count


def _both(*queries: tuple[Connection, sql.Composed]) -> list[list[tuple[Any, ...]]]:
    """Run one query on each server at the same time, and return the rows of each."""
    results: dict[int, list[tuple[Any, ...]]] = {}
    errors: list[BaseException] = []

    def run(number: int, connection: Connection, query: sql.Composed) -> None:
        try:
            results[number] = connection.execute(query).fetchall()
        except BaseException as error:  # noqa: BLE001 - raised below, in the thread that asked
            errors.append(error)

    threads = [threading.Thread(target=run, args=(number, *query), daemon=True) for number, query in enumerate(queries)]
    for thread in threads:
        thread.start()
    for thread in threads:
        # with a timeout, so that Ctrl-C is handled
        while thread.is_alive():
            thread.join(timeout=0.2)
    if errors:
        raise errors[0]
    return [results[number] for number in range(len(queries))]


def _streamed(connection: Connection, query: sql.Composed) -> Iterator[tuple[Any, ...]]:
    """Yield the rows of a query, and hold only a piece of them in memory."""
    with connection.cursor(name="tidemark_reconcile") as cursor:
        cursor.itersize = _FETCHED_AT_ONCE
        cursor.execute(query)
        yield from cursor


def _merge(there: Iterator[tuple[Any, ...]], here: Iterator[tuple[Any, ...]], *, width: int, found: Difference) -> None:
    """Find keys that only one side has, and keys whose hashes differ. Both inputs are sorted."""
    a, b = next(there, None), next(here, None)
    while a is not None or b is not None:
        if b is None or (a is not None and a[:width] < b[:width]):
            assert a is not None
            found.missing.append(a[:width])
            a = next(there, None)
        elif a is None or b[:width] < a[:width]:
            found.extra.append(b[:width])
            b = next(here, None)
        else:
            if a[width] != b[width]:
                found.different.append(a[:width])
            a, b = next(there, None), next(here, None)
        if sum(found.counts) > _MOST_DIFFERENT:
            raise TidemarkError(
                f"More than {_MOST_DIFFERENT:,} rows differ: read the stream from its beginning, which writes only the "
                "differences: `meltano run --full-refresh tap-postgres target-postgres`."
            )


def _counted(there: Iterator[tuple[Any, ...]], here: Iterator[tuple[Any, ...]]) -> tuple[int, int]:
    """Count the rows that only one side has, by their hashes."""
    missing = extra = 0
    a, b = next(there, None), next(here, None)
    while a is not None or b is not None:
        if b is None or (a is not None and a[0] < b[0]):
            assert a is not None
            missing += a[1]
            a = next(there, None)
        elif a is None or b[0] < a[0]:
            extra += b[1]
            b = next(here, None)
        else:
            missing += max(0, a[1] - b[1])
            extra += max(0, b[1] - a[1])
            a, b = next(there, None), next(here, None)
    return missing, extra


def recheck(source: Connection, warehouse: Connection, pair: ComparedStream, found: Difference) -> Difference:
    """Read the rows of `found` again by key, first in the source, and return the differences that remain.

    Rows that a run loaded meanwhile are newer than the source's rows read here, and so don't count as differences.
    """
    still = Difference(rows=found.rows, keyless=found.keyless)
    width = len(pair.key)
    candidates = sorted({*found.missing, *found.extra, *found.different})
    for keys in pieces(candidates):
        now = source.execute("select statement_timestamp()").fetchone()
        assert now
        there = {row[:width]: row[width:] for row in source.execute(pair.source_rows(keys))}
        here = {row[:width]: row[width:] for row in warehouse.execute(pair.raw_rows(keys))}
        for key in sorted(there.keys() | here.keys()):
            a, b = there.get(key), here.get(key)
            if a is not None and b is not None and a[0] == b[0]:
                continue
            if (a is not None and a[1]) or (b is not None and b[1] is not None and b[1] > now[0]):
                still.pending += 1
            elif b is None:
                still.missing.append(key)
            elif a is None:
                still.extra.append(key)
            else:
                still.different.append(key)
    return still
