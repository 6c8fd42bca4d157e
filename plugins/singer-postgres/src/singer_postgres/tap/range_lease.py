"""A range of a stream that one worker reads, and the snapshot for reading it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from psycopg2 import errors

from singer_postgres.tap import locks
from singer_postgres.tap.locks import LockedError
from singer_postgres.tap.snapshots import ChangedError

if TYPE_CHECKING:
    import queue
    from threading import Condition

    from psycopg2.extensions import connection as Connection  # noqa: N812

    from singer_postgres.core.source.relations import Leaf
    from singer_postgres.core.wire import BatchOrigin, BlockRange
    from singer_postgres.tap.epochs import Epoch
    from singer_postgres.tap.events import Empty, Event, Read
    from singer_postgres.tap.snapshots import Snapshot
    from singer_postgres.tap.source_cost import SourceCost
    from singer_postgres.tap.stream_planning import OpenStream


class StaleError(Exception):
    """The range's stream has failed or restarted. Rows read from the range do not count."""


@dataclass(frozen=True)
class Range:
    """A part of a stream.

    Attributes:
        leaf: the table to read; None for all tables of the stream.
        blocks: the blocks to read; None for all.
        most_files: if the range fills more, it is cut; None for any number.
    """

    stream: OpenStream
    leaf: Leaf | None = None
    blocks: BlockRange | None = None
    most_files: int | None = None

    @property
    def parts(self) -> list[int]:
        """The oids of the tables to read."""
        return list(self.stream.layout.parts) if self.leaf is None else [self.leaf.oid]

    @property
    def counted(self) -> list[int] | None:
        """The tables whose pages the reading session counts; None if it counts only some of what is read."""
        is_partly = self.leaf is None and (self.stream.is_parallel or not self.stream.relation.leaves)
        return None if is_partly else self.parts


class RangeLease:
    """A range that one worker reads.

    It keeps the stream's snapshot open until the worker's transaction has begun under it.
    """

    def __init__(self, range_: Range, snapshot: Snapshot, lock: Condition, events: queue.Queue[Event]) -> None:
        """Take the range. The caller holds `lock`.

        Args:
            lock: guards what the workers share.
            events: receives the chunks of the range.
        """
        self.range = range_
        self.stream = range_.stream
        self.epoch: Epoch = range_.stream.epoch
        self.snapshot = snapshot
        self.origin: BatchOrigin = replace(self.stream.origin, snapshot=snapshot.id, snapshot_at=snapshot.at)
        self.announced = False
        """Some of the range was announced to the target."""
        self._lock = lock
        self._events = events
        self._holds_snapshot = True
        snapshot.use()

    def begin(self, connection: Connection, *, lock_timeout_s: float) -> None:
        """Begin a transaction under the snapshot and lock the range's tables. The snapshot may end after that.

        Raises:
            LockedError: a table is locked.
            ChangedError: a table changed after the snapshot was taken.
        """
        try:
            with connection.cursor() as cursor:
                self.snapshot.enter(cursor)
                try:
                    locks.lock(cursor, self.stream.selection.source(self.range.leaf), lock_timeout_s=lock_timeout_s)
                    self.snapshot.require_same(self.range.parts, self.stream.columns_read)
                except LockedError as error:
                    cursor.execute("ROLLBACK")
                    raise LockedError(self.snapshot.locked_by(self.range.parts)) from error
                except (errors.UndefinedTable, errors.InvalidSchemaName) as error:
                    cursor.execute("ROLLBACK")
                    raise ChangedError("it, or a part of it, was dropped or renamed") from error
                except ChangedError:
                    cursor.execute("ROLLBACK")
                    raise
            with self._lock:
                self.stream.pause.over()
        finally:
            self.release_snapshot()

    def release_snapshot(self) -> None:
        """Release this lease's hold on the snapshot: the worker's transaction has begun under it, or never will."""
        with self._lock:
            if self._holds_snapshot:
                self._holds_snapshot = False
                self.snapshot.used()

    def add_cost(self, cost: SourceCost) -> None:
        """Add what reading the range cost the source."""
        cost.snapshot_s = self.snapshot.age_s
        with self._lock:
            self.stream.cost.add(cost)

    def announce(self, event: Read | Empty) -> None:
        """Put an event into the queue.

        No event of a stream may follow its end, because the receiver no longer expects any.

        Raises:
            StaleError: the stream has failed or restarted.
        """
        with self._lock:
            if not self.epoch.is_reading:
                raise StaleError
            self.epoch.announced = self.announced = True
            self._events.put(event)
