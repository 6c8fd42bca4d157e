"""Reads streams into chunk files, several ranges at once.

Each worker has a connection of its own. It goes through the same steps for every range: it takes a lease of the next
range and of its stream's snapshot, begins a short transaction under that snapshot, copies the rows into files, and
announces them. A table is locked only while a range of it is read. Workers put events and know nothing of Singer. One
thread takes the events and writes messages and state.
"""

from __future__ import annotations

import queue
import threading
import time
from typing import TYPE_CHECKING

from psycopg2 import sql

from singer_postgres.core.wire import Chunk, EmptyRange
from singer_postgres.core.worker_connection import WorkerConnection
from singer_postgres.tap.chunk_files import ChunkFile, ChunkFiles, ChunkWriter, ReadingStopped
from singer_postgres.tap.events import Empty, Event, Failed, Read
from singer_postgres.tap.locks import LockedError
from singer_postgres.tap.range_lease import RangeLease, StaleError
from singer_postgres.tap.range_outcomes import RangeOutcomes
from singer_postgres.tap.range_queue import RangeQueue
from singer_postgres.tap.snapshots import ChangedError
from singer_postgres.tap.source_cost import SessionMeter, SourceCost
from singer_postgres.tap.worker_count import Crowded

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from psycopg2.extensions import connection as Connection  # noqa: N812

    from singer_postgres.core.notices import Notices
    from singer_postgres.core.wire import BlockRange
    from singer_postgres.tap.connections import SourceConnector
    from singer_postgres.tap.source_queries import ReadSettings
    from singer_postgres.tap.stream_plan import StreamPlan


class ChunkReaders:
    """The workers of one run."""

    def __init__(
        self,
        source: SourceConnector,
        plans: Iterable[StreamPlan],
        files: ChunkFiles,
        settings: ReadSettings,
        notices: Notices,
    ) -> None:
        """Start with nothing read."""
        self.events: queue.Queue[Event] = queue.Queue()
        self._source = source
        self._files = files
        self._chunk_bytes, self._ceiling = settings.chunk_bytes, settings.ceiling
        self._queue = RangeQueue(source, plans, settings, notices, self.events)
        self._outcomes = RangeOutcomes(self._queue)
        self._parallel = settings.parallel

    def start(self) -> None:
        """Start the threads that read."""
        for number in range(self._parallel):
            threading.Thread(target=self._work, name=f"reader-{number}", daemon=True).start()

    def expire(self) -> None:
        """Give up snapshots that are too old, even if no worker asks for a range: the target may have stopped."""
        try:
            self._queue.expire()
        except Exception as error:  # noqa: BLE001 - the thread that takes the events reports any error
            self.events.put(Failed(error, None))

    def _work(self) -> None:
        worker, meter = WorkerConnection(self._source.connect_once), SessionMeter()
        try:
            while self._read_next(worker, meter):
                pass
        except (ReadingStopped, Crowded):
            # the run is over, or other workers read the rest
            return
        except Exception as error:  # noqa: BLE001 - the thread that takes the events reports any error
            self.events.put(Failed(error, None))
        finally:
            worker.close()

    def _read_next(self, worker: WorkerConnection[Connection], meter: SessionMeter) -> bool:
        """Read the next range; return False if no range is left.

        Raises:
            ReadingStopped: the run is over.
            Crowded: the source accepts no more connections, and other workers read the rest.
        """
        # wait for room first, so that a slow target doesn't keep a snapshot open
        path = self._files.new()
        try:
            lease = self._queue.next(worker)
            if lease is None:
                self._files.discard(path)
                return False
        except BaseException:
            self._files.discard(path)
            raise
        with self._outcomes.of(lease):
            self._read(worker, lease, path, meter)
        return True

    def _read(self, worker: WorkerConnection[Connection], lease: RangeLease, path: Path, meter: SessionMeter) -> None:
        """Read one range in one transaction, and announce its files."""
        try:
            connection = self._queue.queries.workers.connection(worker)
        except BaseException:
            self._files.discard(path)
            raise
        try:
            with self._queue.queries.watch.over(connection, worker.pid) as reader:
                writer = ChunkWriter(
                    self._files,
                    path,
                    chunk_bytes=self._chunk_bytes,
                    binary=lease.stream.selection.binary,
                    done=lambda file: self._announce(lease, file),
                    most_files=lease.range.most_files,
                    gave_way=reader.gave_way,
                    ceiling=self._ceiling,
                )
                began, cost = time.monotonic(), SourceCost()
                try:
                    lease.begin(connection, lock_timeout_s=self._source.lock_timeout_s)
                    rows = _copy(connection, lease, writer, meter, cost)
                except BaseException:
                    writer.abandon()
                    raise
                finally:
                    cost.bytes, cost.paused_s = writer.received, writer.paused_s
                    cost.seconds = time.monotonic() - began - writer.waited_s - writer.paused_s
                    lease.add_cost(cost)
        except (LockedError, ChangedError):
            # the transaction was rolled back, and the session can be used again
            raise
        except BaseException:
            worker.close()
            raise
        if reader.gave_way.is_set():
            # the signal came too late to interrupt the range, but it may still end the session
            worker.close()
        self._announce_end(lease, writer.finish(rows), rows)

    def _announce(self, lease: RangeLease, file: ChunkFile, rows: int = 0, blocks: BlockRange | None = None) -> None:
        """Announce a file of the range.

        Args:
            rows: the rows read since the last file of the range.
            blocks: the range, if the file completes it and a first load can resume after it.
        """
        chunk = Chunk(
            **lease.origin.common,
            rows=file.rows,
            bytes=file.bytes,
            crc32=file.crc32,
            blocks=blocks,
            again=lease.stream.passes.again,
        )
        try:
            lease.announce(Read(lease.stream.plan, chunk, file.path, rows))
        except StaleError:
            self._files.discard(file.path)
            raise

    def _announce_end(self, lease: RangeLease, last: ChunkFile | None, rows: int) -> None:
        """Announce the last file of the range, or that the range is empty."""
        plan = lease.stream.plan
        is_first_load = plan.method != "FULL_TABLE" and plan.bookmark is None and plan.backfill is None
        # a later pass completes no range
        blocks = lease.range.blocks if is_first_load and lease.stream.passes.since is None else None
        if last is not None:
            self._announce(lease, last, rows, blocks)
        elif blocks is not None:
            lease.announce(Empty(plan, EmptyRange(**lease.origin.common, blocks=blocks)))


def _copy(connection: Connection, lease: RangeLease, writer: ChunkWriter, meter: SessionMeter, cost: SourceCost) -> int:
    """Read a whole range; return the number of its rows. Add to what it cost."""
    stream = lease.stream
    query = stream.selection.query(leaf=lease.range.leaf, blocks=lease.range.blocks, bound=stream.condition)
    form = "binary" if stream.selection.binary else "text"
    with connection.cursor() as cursor:
        meter.begin(connection, cursor)
        copy = sql.SQL("COPY ({}) TO STDOUT (FORMAT {})").format(query, sql.SQL(form)).as_string(connection)
        buffer = writer.buffered()
        cursor.copy_expert(copy, buffer)
        rows: int = cursor.rowcount
        buffer.flush()
        buffer.detach()
        meter.commit(cursor, lease.range.counted, cost)
    return rows
