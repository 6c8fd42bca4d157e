"""Turns the workers' events into messages and state, in the one thread that may write them."""

from __future__ import annotations

import json
import math
import queue
import select
import sys
import threading
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from singer_postgres.core.load_part import PART
from singer_postgres.core.source.block_ranges import merged
from singer_postgres.core.types import json_schema
from singer_postgres.core.wire import FIRST_LOAD, OF_LOG, SHAPE
from singer_postgres.tap.events import ChangesRead, CutReached, Empty, Event, Failed, Finished, Opened, Read
from singer_postgres.tap.progress import Progress

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from singer_sdk.metrics import Counter

    from singer_postgres.core.source.stream_query import ReadColumns
    from singer_postgres.core.wire import Batch, BatchOrigin, BlockRange, Cut, StreamEnd, Table, WireColumn
    from singer_postgres.tap.chunk_files import ChunkFiles
    from singer_postgres.tap.chunk_readers import ChunkReaders
    from singer_postgres.tap.log.log_reader import LogReader
    from singer_postgres.tap.running import ChunkedStream, RunningTap
    from singer_postgres.tap.storage import Storage
    from singer_postgres.tap.stream_plan import StreamPlan

_TICK_S = 1.0
# Each state message contains all streams. With hundreds of small streams, a message at the end of each would be much to
# write, and much for target and Meltano to read: Meltano takes 0.15 s for one of 1,000 streams.
_STATE_EVERY_S = 1.0
# up to this number of streams, a range and a first load are in the state as soon as they are complete; with more, the
# state waits for this many seconds a stream
_FEW_STREAMS = 50
_STATE_EVERY_STREAM_S = 0.002
_SILENCE_S = 60.0
_COUNT_EVERY_S = 5.0
_DRAIN_POLL_S = 0.02


class BatchWriter:
    """The streams of one run that are read in chunks.

    Chunks are announced as they come, whichever stream they belong to. If they were held back, they would take the room
    that the stream before them needs.
    """

    def __init__(  # noqa: PLR0913 - the parts of a run
        self,
        tap: RunningTap,
        streams: Iterable[ChunkedStream],
        files: ChunkFiles,
        readers: ChunkReaders,
        *,
        log: LogReader | None = None,
        failed: Iterable[str] = (),
    ) -> None:
        """Prepare to write.

        Args:
            log: the reader of LOG_BASED streams, if there are any.
            failed: streams that have failed already.
        """
        self._tap = tap
        self._log = log
        self._streams = {stream.name: stream for stream in streams}
        self._files = files
        self._readers = readers
        # not counted yet
        self._rows: dict[str, int] = {}
        self._counters: dict[str, Counter] = {}
        self._finished: set[str] = set(failed) & self._streams.keys()
        self._closed = False
        self._broken: Exception | None = None
        self._columns: dict[str, ReadColumns] = {}
        # as in the state while a first load is unfinished
        self._columns_first: dict[str, ReadColumns] = {}
        self._tables: dict[tuple[str, bool], Table] = {}
        self._columns_of_log: dict[str, ReadColumns] = {}
        self._progress = Progress(tap.logger)
        self._state_is_due, self._state_written_at = False, -math.inf
        many = len(self._streams) > _FEW_STREAMS
        self._state_every_s = len(self._streams) * _STATE_EVERY_STREAM_S if many else 0.0

    def finish(self, stream: ChunkedStream, counter: Counter) -> None:
        """Write messages until all of `stream` is out.

        Raises:
            SingerPostgresError, psycopg2.Error: the stream, or one read at the same time, can't be read.
        """
        # rows that were read while the SDK asked for another stream
        self._count(stream, counter)
        last_event_at = time.monotonic()
        while stream.name not in self._finished:
            if self._broken is not None:
                # the SDK may go on with the next stream, and nothing would come for it
                raise self._broken
            try:
                event = self._readers.events.get(timeout=_TICK_S)
            except queue.Empty:
                self._readers.expire()
            else:
                if not self._is_late(event):
                    self._take(event)
                last_event_at = time.monotonic()
            self._write_state_after(max(_STATE_EVERY_S, self._state_every_s))
            last_event_at = self._log_silence(last_event_at)
            self._count(stream, counter)
        if not self._closed and len(self._finished) == len(self._streams):
            # all streams may end before the SDK asks for the last ones
            self._closed = True
            self._write_state()
            self._close()

    def _count(self, asked: ChunkedStream, counter: Counter) -> None:
        """Count what was read, also of the streams that the SDK asks for later: a log has changes of all."""
        for name, rows in self._rows.items():
            if name == asked.name:
                counter.increment(rows)
                continue
            if name not in self._counters:
                self._counters[name] = self._streams[name].get_record_counter(log_interval=_COUNT_EVERY_S)
            self._counters[name].increment(rows)
        self._rows.clear()
        if asked.name in self._finished and (own := self._counters.pop(asked.name, None)):
            own.exit()

    def _read(self, stream: str, rows: int) -> None:
        self._rows[stream] = self._rows.get(stream, 0) + rows

    def _is_late(self, event: Event) -> bool:
        """Return whether an event came after its stream's end, when nobody needs it; discard its file."""
        if event.plan is None or event.plan.stream not in self._finished:
            return False
        if isinstance(event, Read | ChangesRead):
            self._files.discard(event.path)
        return True

    def _take(self, event: Event) -> None:
        match event:
            case Opened():
                self._open(event)
            case ChangesRead() | CutReached():
                self._take_of_log(event)
            case Read(plan, chunk, path, rows):
                stream = self._streams[plan.stream]
                self._files.announce(path)
                self._write_batch(stream, chunk, path)
                self._read(stream.name, rows)
                self._progress.read(stream.name, rows=rows, bytes_=chunk.bytes)
                if chunk.blocks is not None:
                    self._note_range(stream, chunk, chunk.blocks)
            case Empty(plan, empty):
                stream = self._streams[plan.stream]
                self._write_batch(stream, empty)
                self._note_range(stream, empty, empty.blocks)
            case Finished(plan, end):
                stream = self._streams[plan.stream]
                self._write_batch(stream, end)
                self._progress.finished(stream.name)
                if plan.method == "LOG_BASED":
                    assert self._log
                    # its changes go on
                    self._log.loaded(plan.stream, end.lsn)
                    return
                self._note_end(stream, plan, end)
                self._finished.add(stream.name)
            case Failed(error, plan):
                self._fail(error, plan)

    def _open(self, opened: Opened) -> None:
        """Describe a stream's table to the target, unless it knows it."""
        plan, table = opened.plan, opened.table
        stream = self._streams[plan.stream]
        if opened.rows_estimate is not None:
            self._progress.opened(plan.stream, opened.rows_estimate if plan.whole else None)
        # a first load goes on with the table as it is, while the log still has it as it was
        of_log = opened.rows_estimate is None
        (self._columns_of_log if of_log else self._columns)[plan.stream] = opened.columns
        if not of_log:
            self._columns_first[plan.stream] = replace(opened.columns, seen=opened.seen or opened.columns.seen)
        if self._tables.get((plan.stream, of_log)) == table:
            return
        self._tables[plan.stream, of_log] = table
        more: dict[str, Any] = {OF_LOG: True} if of_log else {}
        if plan.part is not None:
            begins = plan.part.columns is None
            columns = opened.columns.to_json() if begins else plan.part.columns
            more[PART] = replace(plan.part, ranges=(), columns=columns, begins=begins).to_json()
        self._write(
            type="SCHEMA",
            stream=stream.name,
            schema=_schema(stream, table.columns),
            key_properties=list(table.key),
            bookmark_properties=[stream.replication_key] if stream.replication_key else [],
            pgcopy={**table.to_json(), **more},
        )

    def _fail(self, error: Exception, plan: StreamPlan | None) -> None:
        """Go on without a stream.

        Raises:
            Exception: `error`, if the whole run is to end.
        """
        if plan is None:
            self._files.stop()
            self._broken = error
            raise error
        try:
            self._tap.stream_failed(plan.stream, error)
        except Exception:
            self._files.stop()
            self._write_state()
            raise
        self._finished.add(plan.stream)
        if self._log is not None and plan.method == "LOG_BASED":
            self._log.loaded(plan.stream, None)

    def _take_of_log(self, event: ChangesRead | CutReached) -> None:
        if isinstance(event, CutReached):
            self._note_cut(event.cut, event.complete)
            return
        stream = self._streams[event.plan.stream]
        self._files.announce(event.path)
        self._write_batch(stream, event.changes, event.path)
        self._read(stream.name, event.changes.rows)

    def _note_cut(self, cut: Cut, complete: Sequence[tuple[StreamPlan, Storage | None]]) -> None:
        """Write that all changes up to a position are to be committed, and then that the streams are complete there."""
        assert self._log
        followed = [stream for stream in self._log.streams if stream not in self._finished]
        if followed:
            self._write_batch(self._streams[followed[0]], replace(cut, streams=tuple(followed)))
        else:
            self._log.abandon()
        for plan, storage in complete:
            if plan.stream not in self._finished:
                columns = self._columns_of_log[plan.stream]
                self._streams[plan.stream].set_log_position(cut.slot, cut.end, columns, storage)
        self._state_is_due = True
        if cut.last:
            self._write_state()
            self._finished.update(followed)

    def _note_range(self, stream: ChunkedStream, origin: BatchOrigin, completed: BlockRange) -> None:
        """Write to the state that a range of a first load is complete."""
        state = stream.get_context_state(None)
        _, done, *compared_at = state.get(FIRST_LOAD) or (None, origin.resumed)
        blocks = merged([*map(tuple, done), completed])
        state[FIRST_LOAD] = [origin.end, [list(block_range) for block_range in blocks], *compared_at]
        state[SHAPE] = self._columns_first[stream.name].to_json()
        self._state_is_due = True
        self._write_state_after(self._state_every_s)

    def _note_end(self, stream: ChunkedStream, plan: StreamPlan, end: StreamEnd) -> None:
        if plan.backfill is not None or plan.part is not None:
            return
        if plan.method != "INCREMENTAL":
            self._state_is_due |= stream.forget_bookmark()
            return
        stream.set_bookmark(end.end, self._columns[stream.name], plan.trail)
        self._state_is_due = True
        if plan.whole:
            # The last state says that the first load is unfinished, and after a kill, the next run would go on with it.
            self._write_state_after(self._state_every_s)

    def _write_state_after(self, seconds: float) -> None:
        """Write the state if the last one was written so long ago."""
        if time.monotonic() - self._state_written_at >= seconds:
            self._write_state()

    def _write_state(self) -> None:
        """Write the state if it changed since the last write."""
        if self._state_is_due:
            self._tap.state_writer.write_state(self._tap.state)
            self._state_is_due, self._state_written_at = False, time.monotonic()

    def _write_batch(self, stream: ChunkedStream, batch: Batch, path: Path | None = None) -> None:
        manifest = [path.as_uri()] if path else []
        self._write(type="BATCH", stream=stream.name, encoding=batch.to_json(), manifest=manifest)

    def _write(self, **message: Any) -> None:
        sys.stdout.write(json.dumps(message) + "\n")
        sys.stdout.flush()

    def _close(self) -> None:
        """Wait until the target has removed the last chunk, then remove the directory."""
        # a worker can only be reading a failed stream by now, whose chunks nobody takes
        self._files.stop()
        last_event_at = time.monotonic()
        # the log first: if its reader has failed, nobody may take the files any more
        while not (self._log is None or self._log.join(0)) or self._files.on_their_way():
            time.sleep(_DRAIN_POLL_S)
            last_event_at = self._log_silence(last_event_at)
        self._files.close()

    def _log_silence(self, since: float) -> float:
        """Log once a minute what the run waits for; return the time of the last event or such line."""
        self._progress.tell()
        if time.monotonic() - since < _SILENCE_S:
            return since
        if waiting := self._files.on_their_way():
            self._tap.logger.warning("Waiting for the target to load chunks: chunks=%d", waiting)
        else:
            names = ", ".join(sorted(self._streams.keys() - self._finished))
            self._tap.logger.warning("Waiting for rows from the source: streams=%s", names)
        return time.monotonic()


def _schema(stream: ChunkedStream, columns: Iterable[WireColumn]) -> dict[str, Any]:
    """Return the stream's JSON schema with only `columns`. The log may have columns that the table lacks by now."""
    schema = stream.schema
    known = schema["properties"]
    properties = {
        column.name: known.get(column.name)
        or json_schema(column.type, nullable=True, json_as_object=False, dates_as_string=False)
        for column in columns
    }
    return {**schema, "properties": properties}


def watch_reader(files: ChunkFiles) -> None:
    """End this process within seconds after the reader of its standard output has gone.

    A tap that waits for the database or for room writes nothing, so it would not notice otherwise.
    """

    def watch() -> None:
        poll = select.poll()
        poll.register(sys.stdout.fileno(), 0)
        while not any(flags & (select.POLLERR | select.POLLHUP) for _, flags in poll.poll(1000)):
            pass
        files.abort()

    threading.Thread(target=watch, name="watch-reader", daemon=True).start()
