"""Streams the log of one slot: writes changes into files, cuts at positions, and confirms what the warehouse has.

It runs in one thread, beside the workers that read first loads. It never confirms a position that the target has not
acknowledged, so after a kill the slot still has everything that the warehouse lacks.
"""

from __future__ import annotations

import logging
import threading
import time
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from singer_postgres.core.errors import LogUnfitError, ReplicationError
from singer_postgres.core.log_origin import LogOrigin
from singer_postgres.core.lsn import lsn_of, lsn_text
from singer_postgres.core.source import pgoutput
from singer_postgres.core.stop_file import StopFile
from singer_postgres.core.wire import Cut
from singer_postgres.tap.chunk_files import ReadingStopped
from singer_postgres.tap.events import CutReached, Event, Failed, Opened
from singer_postgres.tap.log import masking
from singer_postgres.tap.log.acknowledgements import Acknowledgements
from singer_postgres.tap.log.change_files import ChangeFiles
from singer_postgres.tap.log.change_rows import ChangeRows
from singer_postgres.tap.log.cut_schedule import CutSchedule
from singer_postgres.tap.log.log_progress import LogProgress

if TYPE_CHECKING:
    import queue
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from singer_postgres.core.source.pgoutput import RelationMessage
    from singer_postgres.core.source.stream_query import ReadColumns
    from singer_postgres.core.wire import Table
    from singer_postgres.tap.chunk_files import ChunkFiles
    from singer_postgres.tap.log.log_stream import LogStream
    from singer_postgres.tap.log.replication import Replication
    from singer_postgres.tap.log.slot_watch import SlotWatch
    from singer_postgres.tap.read_ceiling import ReadCeiling

_LOGGER = logging.getLogger("tap-postgres")
_TICK_S = 0.2
# the server ends a session that is silent for wal_sender_timeout, a minute by default
_TELL_EVERY_S = 5.0
_POLL_S = 0.005
_WRITE = {pgoutput.INSERT: ChangeRows.insert, pgoutput.UPDATE: ChangeRows.update, pgoutput.DELETE: ChangeRows.delete}
# microseconds since this instant
_EPOCH = datetime(2000, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class LogSettings:
    """How to follow the log.

    Attributes:
        cut_rows: the number of changes after which the next commit ends a cut.
        buffer_bytes: the size of changes in memory, of all streams together, at which they go into files.
        flush_s: the longest time from a change to its cut, while tap and target keep up.
        run_s: for how long to follow; 0 to end at the position that the log had at the start.
        stall_s: how long the target may stand still until the session ends, which lets the source shut down.
    """

    cut_rows: int = 1_000_000
    buffer_bytes: int = 16 * 2**20
    flush_s: float = 2.0
    run_s: float = 0.0
    stall_s: float = 300.0


class LogReader:
    """Follows the log for the LOG_BASED streams of one run."""

    def __init__(  # noqa: PLR0913 - each argument has a name
        self,
        connect: Callable[[], Replication],
        *,
        slot: str,
        publication: str,
        binary: bool,
        streams: Sequence[LogStream],
        confirmed: str,
        end: str,
        describe: Callable[[LogStream, RelationMessage], tuple[Table, ReadColumns, bool]],
        mask_secret: str | None,
        files: ChunkFiles,
        settings: LogSettings,
        events: queue.Queue[Event],
        slot_watch: SlotWatch,
        hasten: Callable[[], None],
        ceiling: ReadCeiling | None = None,
    ) -> None:
        """Prepare to follow.

        Args:
            confirmed: the position that the slot has confirmed.
            end: the position to read up to, at least.
            describe: returns a stream's description after its table was altered.
            events: receives files and cuts.
            slot_watch: tells how much WAL the source keeps meanwhile.
            hasten: has the source write its log up to here.
            ceiling: how fast to read.
        """
        self._connect = connect
        self._slot, self._publication, self._binary = slot, publication, binary
        self._streams = {stream.columns.table_oid: stream for stream in streams}
        self._describe = describe
        self._mask_secret = mask_secret
        self._files = files
        self._settings = settings
        self._events = events
        self._slot_watch = slot_watch
        self._hasten, self._hastened = hasten, 0
        self._ceiling = ceiling
        self._stop_file = StopFile()
        self._failure: Exception | None = None
        self._position = self._cut_at = lsn_of(confirmed)
        self._acknowledged = Acknowledgements(files.directory, self._cut_at, stall_s=settings.stall_s)
        self._end = lsn_of(end)
        self._progress = LogProgress(_LOGGER, arrived="loaded")
        self._at = datetime.now(UTC)
        self._number = 0
        self._changes = ChangeFiles(self._room, events, binary=binary, buffer_bytes=settings.buffer_bytes)
        self._commit_lsn, self._committed_at, self._in_transaction = 0, 0, False
        self._schedule = CutSchedule(rows=settings.cut_rows, flush_s=settings.flush_s)
        self._loaded: dict[str, int | None] = {}
        self._doubts: dict[str, str] = {}
        self._loading = threading.Lock()
        self._abandoned = threading.Event()
        self._thread = threading.Thread(target=self._run, name="log-reader", daemon=True)
        self._origin = LogOrigin("", 0)

    def start(self) -> None:
        """Connect, make the first cut, where the slot is, and start the thread.

        Raises:
            ReplicationError: the slot can't be streamed.
        """
        for stream in self._streams.values():
            self._events.put(Opened(stream.plan, stream.table, stream.columns, None))
        self._acknowledged.open()
        self._replication = self._connect()
        self._origin = self._replication.identify()
        self._replication.start(self._slot, self._publication, binary=self._binary)
        self._cut()
        self._thread.start()

    @property
    def streams(self) -> list[str]:
        """The names of the streams."""
        return [stream.plan.stream for stream in self._streams.values()]

    def join(self, timeout_s: float) -> bool:
        """Wait until everything is confirmed; return whether it is.

        Raises:
            SingerPostgresError: reading ended with an error.
        """
        self._thread.join(timeout_s)
        if self._thread.is_alive():
            return False
        if self._failure is not None:
            raise self._failure
        return True

    def abandon(self) -> None:
        """Confirm nothing more: no stream is left that the target could acknowledge a cut of."""
        self._abandoned.set()

    def loaded(self, stream: str, lsn: str | None) -> None:
        """Note that a stream's first load has ended at a position; or has failed, if it is None."""
        with self._loading:
            self._loaded[stream] = _reachable(lsn_of(lsn)) if lsn else None

    # the thread

    def _run(self) -> None:
        try:
            self._follow(self._replication)
            self._settle(self._replication)
        except ReadingStopped:
            return
        except Exception as error:  # noqa: BLE001 - the thread that takes the events reports any error
            self._failure = error
        finally:
            self._replication.close()
        self._failure = self._slot_watch.at_end(self._failure)
        if self._failure is not None:
            # after the last cut nobody takes events, but `join` raises it
            self._events.put(Failed(self._failure, None))

    def _follow(self, replication: Replication) -> None:
        """Read until the end, and cut there."""
        began = time.monotonic()
        replication.confirm(0, ask=True)
        while True:
            message = replication.read(_TICK_S)
            if not self._is_between_transactions(replication, message):
                continue
            if self._is_over(began):
                self._cut(last=True)
                return
            is_merged = self._acknowledged.position >= self._cut_at
            if self._schedule.is_due(self._position - self._cut_at, is_merged=is_merged):
                self._cut()
            elif message is None:
                self._hasten_end()
                # the server tells its position when it is asked
                replication.confirm(self._acknowledged.position, ask=True)

    def _is_between_transactions(self, replication: Replication, message: bytes | int | None) -> bool:
        """Take what came, and say whether the log may be cut there."""
        if isinstance(message, bytes):
            self._take(replication, message)
            self._pause(replication, len(message))
            if self._in_transaction or message[0] != pgoutput.COMMIT:
                return False
        elif message is None:
            self._schedule.behind_s = 0.0
        elif not self._in_transaction:
            self._position = max(self._position, message)
            self._at = _EPOCH + timedelta(microseconds=replication.clock_us)
        self._tend(replication)
        if self._acknowledged.position < self._cut_at:
            self._acknowledged.refuse_standstill(self._slot)
        return not self._in_transaction

    def _pause(self, replication: Replication, received: int) -> None:
        """Pause to stay below the ceiling, and keep the session alive meanwhile."""
        if self._ceiling is None:
            return

        def is_over() -> bool:
            self._tend(replication)
            return self._files.is_stopped

        self._ceiling.pause(received, is_over=is_over)

    def _take(self, replication: Replication, message: bytes) -> None:
        """Take a message of the log."""
        tag = message[0]
        if (write := _WRITE.get(tag)) is not None:
            stream = self._changed(pgoutput.relation_id(message)[0])
            if stream is not None:
                assert stream.rows
                self._number += 1
                try:
                    row = write(stream.rows, message, self._commit_lsn, self._committed_at, self._number)
                except LogUnfitError as error:
                    self._leave(stream, error)
                else:
                    self._add(stream, row)
        elif tag == pgoutput.BEGIN:
            begin = pgoutput.parse_begin(message)
            self._commit_lsn, self._in_transaction = begin.commit_lsn, True
            self._committed_at = begin.committed_at
            self._at = _EPOCH + timedelta(microseconds=begin.committed_at)
        elif tag == pgoutput.COMMIT:
            self._position = pgoutput.parse_commit(message).end_lsn
            self._in_transaction = False
            self._schedule.behind_s = (replication.clock_us - self._committed_at) / 1e6
        elif tag == pgoutput.RELATION:
            self._described(pgoutput.parse_relation(message))
        elif tag == pgoutput.TRUNCATE:
            for stream in filter(None, map(self._changed, pgoutput.parse_truncate(message))):
                assert stream.rows
                stream.truncated()
                self._number += 1
                self._add(stream, stream.rows.truncate(self._commit_lsn, self._committed_at, self._number))

    def _changed(self, table_oid: int) -> LogStream | None:
        """Return the stream of a table that the transaction changes; None if it lacks nothing of that."""
        stream = self._streams.get(table_oid)
        return None if stream is None or self._commit_lsn < stream.skip_before else stream

    def _leave(self, stream: LogStream, error: Exception) -> None:
        """Go on without a stream."""
        self._changes.leave(stream)
        # other threads read the streams
        self._streams = {oid: each for oid, each in self._streams.items() if each is not stream}
        self._events.put(Failed(error, stream.plan))

    def _awaited(self) -> int:
        """Return the position that the log must reach: that of its start, and of first loads that ended."""
        with self._loading:
            return max(self._end, *filter(None, self._loaded.values()), 0)

    def _hasten_end(self) -> None:
        """Have the source write its log, once for each position that is awaited, when nothing more comes."""
        if self._position < (awaited := self._awaited()) and self._hastened < awaited:
            self._hasten()
            self._hastened = awaited

    def _is_over(self, began: float) -> bool:
        with self._loading:
            for stream in self._streams.values():
                if stream.is_loading and stream.plan.stream in self._loaded:
                    stream.loaded_lsn = self._loaded[stream.plan.stream]
            waiting = [s for s in self._streams.values() if s.is_loading and s.plan.stream not in self._loaded]
        if self._stop_file.is_there() and not any(stream.is_loading for stream in self._streams.values()):
            # the next run reads on from here
            return True
        if self._settings.run_s and time.monotonic() - began < self._settings.run_s and not self._stop_file.is_there():
            return False
        return not waiting and self._position >= self._awaited()

    def _add(self, stream: LogStream, row: bytes) -> None:
        self._schedule.change(self._at)
        self._changes.add(stream, row)

    def _room(self) -> Path:
        """Wait for room for a file, and keep the session alive meanwhile."""
        self._acknowledged.await_from_now()
        while (path := self._files.new_if_room()) is None:
            self._tend(self._replication)
            self._acknowledged.refuse_standstill(self._slot)
            time.sleep(_POLL_S)
        return path

    def _cut(self, *, last: bool = False) -> None:
        for stream in self._streams.values():
            self._changes.write(stream)
            # a table that nobody writes to must not keep its earlier columns for ever
            if self._position >= self._end and stream.reached_start():
                self._events.put(Opened(stream.plan, stream.table, stream.columns, None))
        if last:
            self._slot_watch.look_again()
        loaded = []
        for stream in self._streams.values():
            if stream.is_loading and stream.loaded_lsn is not None and self._position >= stream.loaded_lsn:
                stream.is_loading = False
                loaded.append(stream.plan.stream)
        told = {stream: stream.told(last=last) for stream in self._streams.values()}
        doubts = {stream.plan.stream: why for stream, (why, _) in told.items() if why}
        cut = Cut(
            slot=self._slot,
            system=self._origin.system,
            timeline=self._origin.timeline,
            history=self._origin.history,
            start=lsn_text(self._cut_at),
            end=lsn_text(self._position),
            at=self._at.isoformat(),
            loading=tuple(stream.plan.stream for stream in self._streams.values() if stream.is_loading),
            loaded=tuple(loaded),
            doubts={name: why for name, why in doubts.items() if self._doubts.get(name) != why},
            wal=self._slot_watch.news(self._position),
            acknowledge=str(self._acknowledged.path),
            last=last,
        )
        self._doubts = doubts
        complete = tuple((stream.plan, storage) for stream, (_, storage) in told.items() if not stream.is_loading)
        self._events.put(CutReached(cut, complete))
        if self._acknowledged.position >= self._cut_at:
            self._acknowledged.await_from_now()
        self._progress.on_their_way(self._position, self._schedule.rows, self._schedule.first_commit_at or self._at)
        self._cut_at = self._position
        self._schedule.cut()

    def _settle(self, replication: Replication) -> None:
        """Wait until the target has committed the last cut, and confirm it."""
        self._acknowledged.await_from_now()
        while self._acknowledged.position < self._cut_at and not self._abandoned.is_set():
            self._tend(replication)
            self._acknowledged.refuse_standstill(self._slot)
            replication.read(_POLL_S * 4)
        if self._settings.run_s:
            self._progress.tell(last=True)
        replication.confirm(self._acknowledged.position)

    def _tend(self, replication: Replication) -> None:
        """Read acknowledgements, and tell the server of them now and then."""
        has_more = self._acknowledged.read()
        if self._settings.run_s:
            self._progress.acknowledged(self._acknowledged.position)
            self._progress.tell()
        self._slot_watch.now_and_then()
        if has_more or time.monotonic() - replication.told_at > _TELL_EVERY_S:
            replication.confirm(self._acknowledged.position)

    def _described(self, relation: RelationMessage) -> None:
        """Take a table's description. The first one of a session usually says what is known."""
        stream = self._streams.get(relation.oid)
        if stream is None or stream.relation == relation:
            return
        # its changes so far have the old columns, and what `rows` knows of them
        self._changes.write(stream)
        try:
            table, columns, is_binary = self._describe(stream, relation)
        except LogUnfitError as error:
            self._leave(stream, error)
            return
        if table != stream.table:
            stream.table, stream.columns = table, columns
            self._events.put(Opened(stream.plan, table, columns, None))
        if self._binary and not is_binary:
            msg = (
                f"{stream.plan.stream} got a column that travels as text only: run this again, which reads all as text."
            )
            raise ReplicationError(msg)
        stream.relation = relation
        masks = {name: mask for name, _, mask, _ in stream.columns.columns if mask}
        stream.rows = ChangeRows(
            relation,
            [column.name for column in stream.table.columns],
            stream.table.key,
            binary=self._binary,
            masks=masking.masked_by(relation.columns, masks, self._mask_secret),
        )


def _reachable(lsn: int) -> int:
    """Return a position that the log reaches, although the position for the next record lies after a page's header."""
    header = lsn % 8192
    return lsn - header if header in {24, 40} else lsn
