"""Turns what the workers read into messages and state, in the one thread that may write them."""

from __future__ import annotations

import json
import math
import queue
import select
import sys
import threading
import time
from typing import TYPE_CHECKING, Any

from singer_postgres.core.wire import FIRST_LOAD, SHAPE
from singer_postgres.tap.block_ranges import merged
from singer_postgres.tap.events import Empty, Event, Failed, Finished, Opened, Read
from singer_postgres.tap.progress import Progress

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from singer_sdk.metrics import Counter

    from singer_postgres.core.source.stream_query import ReadColumns
    from singer_postgres.core.wire import Batch, BatchOrigin, BlockRange, StreamEnd
    from singer_postgres.tap.chunk_readers import ChunkReaders
    from singer_postgres.tap.chunks import ChunkFiles
    from singer_postgres.tap.running import ChunkedStream, RunningTap
    from singer_postgres.tap.stream_plan import StreamPlan

_TICK_S = 1.0
# A state has all streams in it: of hundreds of small ones, one at the end of each is much to write, and for target and
# Meltano to read.
_STATE_EVERY_S = 1.0
_SILENCE_S = 60.0
_DRAIN_POLL_S = 0.02


class BatchWriter:
    """The streams of one run that are read in chunks.

    Chunks are announced as they come, whichever stream they are of: were they held back, they would take the room that
    the stream before them needs. Streams are reported on in the order in which the SDK asks for them.
    """

    def __init__(
        self, tap: RunningTap, streams: Iterable[ChunkedStream], files: ChunkFiles, readers: ChunkReaders
    ) -> None:
        self._tap = tap
        self._streams = {stream.name: stream for stream in streams}
        self._files = files
        self._readers = readers
        self._rows: dict[str, int] = dict.fromkeys(self._streams, 0)
        self._finished: set[str] = set()
        self._closed = False
        self._shapes: dict[str, ReadColumns] = {}
        self._progress = Progress(tap.logger)
        self._state_is_due, self._state_told = False, -math.inf

    def finish(self, stream: ChunkedStream, counter: Counter) -> None:
        """Write messages until all of `stream` is out.

        Raises:
            SingerPostgresError, psycopg2.Error: it, or a stream read beside it, can't be read.
        """
        # what was read of it while another stream was asked for
        self._count(stream, counter)
        heard = time.monotonic()
        while stream.name not in self._finished:
            try:
                event = self._readers.events.get(timeout=_TICK_S)
            except queue.Empty:
                self._readers.expire()
            else:
                if not self._is_late(event):
                    self._take(event)
                heard = time.monotonic()
            if time.monotonic() - self._state_told >= _STATE_EVERY_S:
                self._tell_state()
            heard = self._tell_of_silence(heard)
            self._count(stream, counter)
        if not self._closed and len(self._finished) == len(self._streams):
            # all may have ended before the SDK asks for the last ones
            self._closed = True
            self._tell_state()
            self._close()

    def _count(self, stream: ChunkedStream, counter: Counter) -> None:
        counter.increment(self._rows[stream.name])
        self._rows[stream.name] = 0

    def _is_late(self, event: Event) -> bool:
        """Return whether an event came after the end of its stream, for which nobody waits; take its file away."""
        if event.plan is None or event.plan.stream not in self._finished:
            return False
        if isinstance(event, Read):
            self._files.discard(event.path)
        return True

    def _take(self, event: Event) -> None:
        match event:
            case Opened(plan, table, shape, rows_estimate):
                stream = self._streams[plan.stream]
                self._shapes[plan.stream] = shape
                self._progress.opened(plan.stream, rows_estimate if plan.whole else None)
                self._write(
                    type="SCHEMA",
                    stream=stream.name,
                    schema=_schema(stream, [column.name for column in table.columns]),
                    key_properties=list(table.key),
                    bookmark_properties=[stream.replication_key] if stream.replication_key else [],
                    pgcopy=table.to_json(),
                )
            case Read(plan, chunk, path, rows):
                stream = self._streams[plan.stream]
                self._files.announce(path)
                self._write_batch(stream, chunk, path)
                self._rows[stream.name] += rows
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
                self._note_end(stream, plan, end)
                self._progress.finished(stream.name)
                self._finished.add(stream.name)
            case Failed(error, plan):
                if plan is None:
                    self._files.stop()
                    raise error
                try:
                    self._tap.stream_failed(plan.stream, error)
                except Exception:
                    self._files.stop()
                    self._tell_state()
                    raise
                self._finished.add(plan.stream)

    def _note_range(self, stream: ChunkedStream, origin: BatchOrigin, completed: BlockRange) -> None:
        """Note, at once, a range of a first load that is complete."""
        state = stream.get_context_state(None)
        _, done = state.get(FIRST_LOAD) or (None, origin.resumed)
        blocks = merged([*map(tuple, done), completed])
        state[FIRST_LOAD] = [origin.end, [list(block_range) for block_range in blocks]]
        state[SHAPE] = self._shapes[stream.name].to_json()
        self._state_is_due = True
        self._tell_state()

    def _note_end(self, stream: ChunkedStream, plan: StreamPlan, end: StreamEnd) -> None:
        if plan.method != "INCREMENTAL" or plan.backfill is not None:
            return
        stream.set_bookmark(end.end, self._shapes[stream.name], plan.trail)
        self._state_is_due = True
        if plan.whole:
            # the state before says that a first load is under way: the run after a kill would go on with that, and
            # leave what changed meanwhile to the next
            self._tell_state()

    def _tell_state(self) -> None:
        """Write the state, if it changed since it was written last."""
        if self._state_is_due:
            self._tap.state_writer.write_state(self._tap.state)
            self._state_is_due, self._state_told = False, time.monotonic()

    def _write_batch(self, stream: ChunkedStream, batch: Batch, path: Path | None = None) -> None:
        manifest = [path.as_uri()] if path else []
        self._write(type="BATCH", stream=stream.name, encoding=batch.to_json(), manifest=manifest)

    def _write(self, **message: Any) -> None:
        sys.stdout.write(json.dumps(message) + "\n")
        sys.stdout.flush()

    def _close(self) -> None:
        """Stay until the target has taken the last chunk away, then remove the directory."""
        # what a worker still reads is of a stream that failed: nobody will take that
        self._files.stop()
        heard = time.monotonic()
        while self._files.on_their_way():
            time.sleep(_DRAIN_POLL_S)
            heard = self._tell_of_silence(heard)
        self._files.close()

    def _tell_of_silence(self, since: float) -> float:
        """Say once a minute what the run waits for; return since when nobody was told."""
        self._progress.tell()
        if time.monotonic() - since < _SILENCE_S:
            return since
        if waiting := self._files.on_their_way():
            self._tap.logger.warning("Waiting for the target to load %d chunks", waiting)
        else:
            names = ", ".join(sorted(self._streams.keys() - self._finished))
            self._tap.logger.warning("Waiting for the source to give rows of %s", names)
        return time.monotonic()


def _schema(stream: ChunkedStream, columns: list[str]) -> dict[str, Any]:
    """Return the stream's JSON schema without what is not read."""
    schema = stream.schema
    return {**schema, "properties": {name: schema["properties"][name] for name in columns}}


def watch_reader(files: ChunkFiles) -> None:
    """End this process within seconds once nobody reads its standard output any more.

    A tap that waits for the database or for room would not notice by itself: it writes nothing then.
    """

    def watch() -> None:
        poll = select.poll()
        poll.register(sys.stdout.fileno(), 0)
        while not any(flags & (select.POLLERR | select.POLLHUP) for _, flags in poll.poll(1000)):
            pass
        files.abort()

    threading.Thread(target=watch, name="watch-reader", daemon=True).start()
