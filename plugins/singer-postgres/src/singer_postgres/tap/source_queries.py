"""Queries the source for the range queue: opens streams, takes snapshots, and cuts tables into ranges."""

from __future__ import annotations

import logging
from collections import Counter
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

import psycopg2
from psycopg2 import extensions, sql

from singer_postgres.core import driver_errors
from singer_postgres.core.errors import SingerPostgresError, one_line
from singer_postgres.core.read_report import ReadReport
from singer_postgres.core.source import block_ranges
from singer_postgres.core.source.identity import identity
from singer_postgres.tap.locks import LockedError, Watch
from singer_postgres.tap.range_lease import Range
from singer_postgres.tap.snapshots import ChangedError, Snapshot
from singer_postgres.tap.stream_planning import OpenStream, open_stream
from singer_postgres.tap.worker_count import NEEDED, Crowded, Workers

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from psycopg2.extensions import connection as Connection  # noqa: N812

    from singer_postgres.core.notices import Notices
    from singer_postgres.core.source.replication_key import Lookback
    from singer_postgres.core.source.stream_query import ReadColumns
    from singer_postgres.core.wire import Table
    from singer_postgres.tap.connections import SourceConnector
    from singer_postgres.tap.read_ceiling import ReadCeiling
    from singer_postgres.tap.stream_plan import StreamPlan

_T = TypeVar("_T")
_LOGGER = logging.getLogger("tap-postgres")
# how many files one statement may fill with what an index finds
_MOST_FILES = 8


@dataclass(frozen=True)
class ReadSettings:
    """How much to read at once."""

    chunk_bytes: int
    parallel: int
    snapshot_s: float
    lookback: Lookback
    ceiling: ReadCeiling | None = None


class SourceQueries:
    """The source, and our connections to it that read no rows."""

    def __init__(self, source: SourceConnector, settings: ReadSettings, notices: Notices) -> None:
        """Start with no connection."""
        self.watch = Watch(source)
        self.workers = Workers(settings.parallel)
        self.lock_timeout_s = source.lock_timeout_s
        self._source = source
        self._settings = settings
        self._notices = notices
        self._idle: list[Connection] = []
        self.retries: Counter[str] = Counter()
        """How often each stream was read again after an error."""
        self._identity: str | None = None

    def open_stream(self, plan: StreamPlan) -> tuple[OpenStream, list[Range]]:
        """Open a stream; return it with its ranges.

        Raises:
            SingerPostgresError, psycopg2.Error: the stream can't be read.
            LockedError, ReadInterruptedError: its table is locked, or another session waits to lock it.
        """
        connection = self._connect()
        with self._kept(connection), self.watch.over(connection):
            if self._identity is None:
                self._identity = identity(connection)
            stream = open_stream(
                connection,
                plan,
                lookback=self._settings.lookback,
                notices=self._notices,
                lock_timeout_s=self._source.lock_timeout_s,
            )
            if plan.method == "INCREMENTAL" and plan.backfill is None and stream.snapshot:
                stream.held_back = stream.snapshot.open_transactions.held_back(longest=self._settings.lookback.longest)
            if stream.plan.whole or not stream.relation.leaves:
                return stream, self.cut(stream)
            found = self._explain(stream)
            stream.is_parallel = "Workers Planned" in str(found)
            # a statement that is interrupted begins again, which needs a key; and below a ceiling it is to end soon
            most_files = _MOST_FILES if stream.plan.key and self._settings.ceiling is None else 1
            # an index finds what changed, and ranges of blocks are read whole
            few = most_files / 2 if "Seq Scan" not in str(found) else 0.5
            if found["Plan Rows"] * found["Plan Width"] < few * self._settings.chunk_bytes:
                return stream, [Range(stream, most_files=most_files)]
            return stream, self.cut(stream)

    def _explain(self, stream: OpenStream) -> dict[str, Any]:
        """Return the planner's plan for the stream's query."""
        snapshot = stream.snapshot
        assert snapshot
        try:
            with snapshot.locked(), snapshot.connection.cursor() as cursor:
                cursor.execute(sql.SQL("EXPLAIN (FORMAT JSON) ") + stream.selection.query(bound=stream.condition))
                row = cursor.fetchone()
        except ChangedError as error:
            # it changed right after its opening, so open it again later, like a locked table
            raise LockedError(str(error)) from error
        assert row
        plan: dict[str, Any] = row[0][0]["Plan"]
        return plan

    def cut(self, stream: OpenStream) -> list[Range]:
        """Return the stream's ranges, without a query."""
        leaves = stream.relation.leaves
        if not leaves:
            return [Range(stream)]
        cut = block_ranges.cut(leaves, chunk_bytes=self._settings.chunk_bytes, parallel=self._settings.parallel)
        if stream.passes.since is not None:
            return [Range(stream, leaf, blocks) for leaf, blocks in cut]
        if stream.plan.part is not None:
            cut = block_ranges.within(cut, stream.plan.part.ranges)
        return [Range(stream, leaf, blocks) for leaf, blocks in block_ranges.remaining(cut, stream.origin.resumed)]

    def share(self, stream: OpenStream, ranges: list[Range]) -> float:
        """Return how much of the stream's tables lies in `ranges`, from 0 to 1."""
        cut = [(range_.leaf, range_.blocks) for range_ in ranges if range_.leaf and range_.blocks]
        return block_ranges.share(cut, stream.relation.leaves) if len(cut) == len(ranges) else 1.0

    def describe(self, stream: OpenStream) -> tuple[Table, ReadColumns]:
        """Return the description of a stream for the target, and the one for the state."""
        return stream.plan.described(self._identity or "", stream.selection)

    def snapshot(self, stream: OpenStream) -> Snapshot:
        """Take another snapshot of a stream.

        Raises:
            SingerPostgresError, psycopg2.Error: the stream can no longer be read.
            LockedError, ReadInterruptedError: its table is locked, or another session waits to lock it.
        """
        connection = self._connect()
        with self._kept(connection), self.watch.over(connection):
            plan = stream.plan
            return Snapshot(connection, plan.schema, plan.name, lock_timeout_s=self._source.lock_timeout_s)

    def with_retries(self, plan: StreamPlan, attempt: Callable[[], _T]) -> _T:
        """Call `attempt`, and retry transient errors."""

        def may_succeed(error: BaseException) -> bool:
            if self.workers.leaves(error):
                raise Crowded from error
            return driver_errors.is_transient(error, reached=self._identity is not None)

        return driver_errors.retry(attempt, is_transient=may_succeed, on_retry=partial(self.note_retry, plan))

    def note_retry(self, plan: StreamPlan, error: BaseException, wait_s: float) -> None:
        """Log and count a retry."""
        self.retries[plan.stream] += 1
        what = one_line(error)
        _LOGGER.warning("Reading is retried: stream=%s, wait_s=%.1f, error=%s", plan.stream, wait_s, what)

    def wrap_error(self, error: Exception, plan: StreamPlan, more: str | None = None) -> Exception:
        """Wrap a driver's error in one of ours that names the stream. Return other errors unchanged."""
        of_stream = bool(more) or driver_errors.ends_one_stream(error) or self._is_reached()
        more = more or (NEEDED if driver_errors.is_out_of_connections(error) else "")
        role = extensions.parse_dsn(self._source.dsn()).get("user")
        return driver_errors.wrap_driver_error(
            error, f"Reading {plan.stream}", more, side="source", of_stream=of_stream, role=role
        )

    def _is_reached(self) -> bool:
        """Return whether the source still accepts connections. If so, only this stream's connections break."""
        if self._identity is None:
            return False
        try:
            self._source.connect_once().close()
        except (psycopg2.Error, SingerPostgresError):
            return False
        return True

    def report(self, stream: OpenStream) -> ReadReport:
        """Return how a stream was read, at its end."""
        by, seconds = stream.held_back or (None, None)
        cost = stream.cost
        return ReadReport(
            self.retries[stream.plan.stream],
            round(cost.seconds, 3),
            by,
            seconds,
            source_bytes=cost.bytes,
            source_buffers_hit=cost.buffers_hit,
            source_buffers_read=cost.buffers_read,
            source_wal_bytes=cost.wal_bytes,
            snapshot_seconds=round(cost.snapshot_s, 3),
            seconds_paused=round(cost.paused_s, 3),
        )

    def release(self, snapshot: Snapshot) -> None:
        """End a snapshot, and keep its connection for another snapshot."""
        try:
            connection = snapshot.release()
        except psycopg2.Error:
            # the connection broke, which ended its transaction
            snapshot.connection.close()
        else:
            self._idle.append(connection)

    @contextmanager
    def _kept(self, connection: Connection) -> Iterator[None]:
        """Keep a connection for later if a table was locked; close it after any other error."""
        try:
            yield
        except LockedError:
            try:
                with connection.cursor() as cursor:
                    cursor.execute("ROLLBACK")
                self._idle.append(connection)
            except psycopg2.Error:
                connection.close()
            raise
        except BaseException:
            connection.close()
            raise

    def _connect(self) -> Connection:
        with suppress(IndexError):
            return self._idle.pop()
        return self._source.connect_once()
