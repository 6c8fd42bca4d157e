"""Asks the source for what the queue of ranges needs: streams opened, snapshots taken, tables cut into ranges."""

from __future__ import annotations

import logging
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, TypeVar

import psycopg2
from psycopg2 import sql

from singer_postgres.core import driver_errors
from singer_postgres.core.errors import SingerPostgresError, one_line
from singer_postgres.core.source.identity import identity
from singer_postgres.core.wire import Table
from singer_postgres.tap import block_ranges
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
    from singer_postgres.tap.connections import SourceConnector
    from singer_postgres.tap.stream_plan import StreamPlan

_T = TypeVar("_T")
_LOGGER = logging.getLogger("tap-postgres")


@dataclass(frozen=True)
class ReadSettings:
    """How much at once."""

    chunk_bytes: int
    parallel: int
    snapshot_s: float
    lookback: Lookback


class SourceQueries:
    """The source, and those of our connections to it that read no rows."""

    def __init__(self, source: SourceConnector, settings: ReadSettings, notices: Notices) -> None:
        """Begin with no connection."""
        self.watch = Watch(source)
        self.workers = Workers(settings.parallel)
        self.lock_timeout_s = source.lock_timeout_s
        self._source = source
        self._settings = settings
        self._notices = notices
        self._idle: list[Connection] = []
        self._identity: str | None = None

    def open_stream(self, plan: StreamPlan) -> tuple[OpenStream, list[Range]]:
        """Open a stream; return it with its ranges.

        Raises:
            SingerPostgresError, psycopg2.Error: it can't be read.
            LockedError, GaveWayError: its table is locked, or somebody waits for it.
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
            if stream.plan.whole or not stream.relation.leaves:
                return stream, self.cut(stream)
            if self._estimate(stream) < self._settings.chunk_bytes / 2:
                # what changed fits one chunk: an index on the replication key finds it
                return stream, [Range(stream, may_roll=False)]
            return stream, self.cut(stream)

    def _estimate(self, stream: OpenStream) -> float:
        """Return the planner's idea of how many bytes the stream's query gives."""
        snapshot = stream.snapshot
        assert snapshot
        try:
            with snapshot.locked(), snapshot.connection.cursor() as cursor:
                cursor.execute(sql.SQL("EXPLAIN (FORMAT JSON) ") + stream.selection.query(bound=stream.bound))
                row = cursor.fetchone()
        except ChangedError as error:
            # so soon: as if it had been locked all along
            raise LockedError(str(error)) from error
        assert row
        plan = row[0][0]["Plan"]
        return float(plan["Plan Rows"]) * float(plan["Plan Width"])

    def cut(self, stream: OpenStream) -> list[Range]:
        """Return the stream's ranges. Asks nobody."""
        leaves = stream.relation.leaves
        if not leaves:
            return [Range(stream)]
        cut = block_ranges.cut(leaves, chunk_bytes=self._settings.chunk_bytes, parallel=self._settings.parallel)
        return [Range(stream, leaf, blocks) for leaf, blocks in block_ranges.remaining(cut, stream.origin.resumed)]

    def describe(self, stream: OpenStream) -> tuple[Table, ReadColumns]:
        """Return what the target and the state are told of a stream."""
        plan, selection = stream.plan, stream.selection
        shape = selection.read_columns()
        table = Table(
            self._identity or "",
            plan.schema,
            plan.name,
            selection.wire_columns(),
            plan.key,
            plan.method,
            selection.binary,
            table_oid=shape.relation,
            max_attnum=shape.width,
        )
        return table, shape

    def snapshot(self, stream: OpenStream) -> Snapshot:
        """Take another snapshot of a stream.

        Raises:
            SingerPostgresError, psycopg2.Error: it can't be read any more.
            LockedError, GaveWayError: its table is locked, or somebody waits for it.
        """
        connection = self._connect()
        with self._kept(connection), self.watch.over(connection):
            plan = stream.plan
            return Snapshot(connection, plan.schema, plan.name, lock_timeout_s=self._source.lock_timeout_s)

    def with_retries(self, plan: StreamPlan, attempt: Callable[[], _T]) -> _T:
        """Carry out `attempt`, again if its error may pass."""

        def passes(error: BaseException) -> bool:
            if self.workers.leaves(error):
                raise Crowded from error
            return driver_errors.is_transient(error, reached=self._identity is not None)

        return driver_errors.retry(attempt, is_transient=passes, on_retry=partial(tell_of_retry, plan))

    def wrap_error(self, error: Exception, plan: StreamPlan, more: str | None = None) -> Exception:
        """Return the error with the stream's name in it, if it is one of the database's."""
        of_stream = bool(more) or driver_errors.ends_one_stream(error) or self._is_reached()
        more = more or (NEEDED if driver_errors.is_out_of_connections(error) else "")
        return driver_errors.wrap_driver_error(
            error, f"Reading {plan.stream}", more, side="source", of_stream=of_stream
        )

    def _is_reached(self) -> bool:
        """Return whether the source is there: a connection that breaks again and again is then its stream's."""
        if self._identity is None:
            return False
        try:
            self._source.connect_once().close()
        except (psycopg2.Error, SingerPostgresError):
            return False
        return True

    def release(self, snapshot: Snapshot) -> None:
        """End a snapshot, and keep its connection for another one."""
        try:
            connection = snapshot.release()
        except psycopg2.Error:
            # it broke, and its transaction ended with it
            snapshot.connection.close()
        else:
            self._idle.append(connection)

    @contextmanager
    def _kept(self, connection: Connection) -> Iterator[None]:
        """Keep a connection for later that found a table locked; close it after any other error."""
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


def tell_of_retry(plan: StreamPlan, error: BaseException, wait_s: float) -> None:
    """Log that what failed is tried again."""
    what = one_line(error)
    _LOGGER.warning("Reading %s is tried again in %.1f s: %s", plan.stream, wait_s, what)
