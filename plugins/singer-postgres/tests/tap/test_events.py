"""Whatever arrives of a stream after its end, the run ends."""

from __future__ import annotations

import logging
import os
import queue
from contextlib import suppress
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from singer_postgres.core.errors import ChunkDirectoryError, SingerPostgresError
from singer_postgres.core.source.stream_query import ReadColumns
from singer_postgres.core.wire import Chunk, EmptyRange, StreamEnd, Table
from singer_postgres.tap.batch_writer import BatchWriter
from singer_postgres.tap.chunk_files import ChunkFile, ChunkFiles
from singer_postgres.tap.events import Empty, Failed, Finished, Opened, Read
from singer_postgres.tap.stream_plan import StreamPlan

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from singer_postgres.tap.events import Event

BROKEN, SOUND = (
    StreamPlan(name, "public", name, "FULL_TABLE", ("id",), ("id",)) for name in ("public-broken", "public-sound")
)
_TABLE = Table("1/1", "public", "broken", (), ("id",), "FULL_TABLE")
_LATE: dict[str, Callable[[Path], Event]] = {
    "opened": lambda _: Opened(BROKEN, _TABLE, ReadColumns(1, 1, ()), 0),
    "a chunk": lambda path: Read(BROKEN, Chunk(rows=1, bytes=2, crc32=3), path, 1),
    "an empty range": lambda _: Empty(BROKEN, EmptyRange(blocks=(1, 0, None))),
    "finished": lambda _: Finished(BROKEN, StreamEnd()),
    "failed": lambda _: Failed(SingerPostgresError("once more"), BROKEN),
}


class _Tap:
    """As much of a tap as takes part."""

    logger = logging.getLogger("tap-postgres")
    failed: list[str]

    def stream_failed(self, stream: str, _: Exception) -> None:
        self.failed.append(stream)


@pytest.mark.parametrize("late", _LATE)
@pytest.mark.parametrize("end", ["failed", "finished"])
def test_what_arrives_after_the_end_of_its_stream_is_left_out_and_the_run_ends(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], late: str, end: str
) -> None:
    files = ChunkFiles(tmp_path, limit=4)
    events: queue.Queue[Event] = queue.Queue()
    tap: Any = _Tap()
    tap.failed = []
    streams: list[Any] = [
        SimpleNamespace(name=plan.stream, replication_key=None, schema={}, forget_bookmark=bool)
        for plan in (BROKEN, SOUND)
    ]
    reading: Any = SimpleNamespace(events=events, expire=lambda: None)
    copying = BatchWriter(tap, streams, files, reading)
    path = files.new()
    path.touch()
    # what still stands when all has ended: a range that its worker is at
    files.new()
    for stream, plan in zip(streams, (BROKEN, SOUND), strict=True):
        copying._progress.opened(stream.name, None)  # else it would have to write a SCHEMA
        events.put(
            Failed(SingerPostgresError("no"), plan)
            if plan is BROKEN and end == "failed"
            else Finished(plan, StreamEnd())
        )
        if plan is BROKEN:
            events.put(_LATE[late](path))
    for stream in streams:
        copying.finish(stream, SimpleNamespace(increment=lambda _: None))  # type: ignore[arg-type]
    assert tap.failed == ["public-broken"] * (end == "failed")
    assert not files.directory.exists()
    assert capsys.readouterr().out.count('"stream": "public-broken"') == (end == "finished")


def test_streams_that_end_before_the_sdk_asks_for_them_end_the_run(tmp_path: Path) -> None:
    files = ChunkFiles(tmp_path, limit=4)
    events: queue.Queue[Event] = queue.Queue()
    streams: list[Any] = [
        SimpleNamespace(name=plan.stream, replication_key=None, forget_bookmark=bool) for plan in (BROKEN, SOUND)
    ]
    reading: Any = SimpleNamespace(events=events, expire=lambda: None)
    writer = BatchWriter(_Tap(), streams, files, reading)  # type: ignore[arg-type]
    for plan in (SOUND, BROKEN):
        writer._progress.opened(plan.stream, None)
        events.put(Finished(plan, StreamEnd()))
    for stream in streams:
        writer.finish(stream, SimpleNamespace(increment=lambda _: None))  # type: ignore[arg-type]
    assert not files.directory.exists()


def test_rows_are_counted_as_they_come_also_of_streams_that_the_sdk_asks_for_later(tmp_path: Path) -> None:
    files = ChunkFiles(tmp_path, limit=4)
    events: queue.Queue[Event] = queue.Queue()
    later: list[int] = []
    own = SimpleNamespace(increment=later.append, exit=lambda: later.append(-1))
    streams: list[Any] = [
        SimpleNamespace(
            name=plan.stream, replication_key=None, forget_bookmark=bool, get_record_counter=lambda **_: own
        )
        for plan in (BROKEN, SOUND)
    ]
    reading: Any = SimpleNamespace(events=events, expire=lambda: None)
    writer = BatchWriter(_Tap(), streams, files, reading)  # type: ignore[arg-type]
    for plan in (SOUND, BROKEN):
        writer._progress.opened(plan.stream, None)
    path = files.new()
    path.touch()
    events.put(Read(SOUND, Chunk(rows=5, bytes=2, crc32=3), path, 5))
    events.put(Finished(BROKEN, StreamEnd()))
    asked: list[int] = []
    writer.finish(streams[0], SimpleNamespace(increment=asked.append))  # type: ignore[arg-type]
    assert (asked, later) == ([], [5])
    path.unlink()
    events.put(Finished(SOUND, StreamEnd()))
    writer.finish(streams[1], SimpleNamespace(increment=asked.append))  # type: ignore[arg-type]
    assert later == [5, -1]


@pytest.mark.parametrize(("count", "least", "most"), [(20, 20, 21), (1000, 1, 3)])
def test_the_state_of_many_streams_which_has_all_of_them_is_not_written_at_the_end_of_each(
    tmp_path: Path, count: int, least: int, most: int
) -> None:
    plans = [StreamPlan(f"public-{n}", "public", str(n), "INCREMENTAL", ("id",), ("id",)) for n in range(count)]
    written: list[object] = []
    tap: Any = _Tap()
    tap.state, tap.state_writer = {}, SimpleNamespace(write_state=written.append)
    streams: list[Any] = [
        SimpleNamespace(name=plan.stream, replication_key="id", set_bookmark=lambda *_: None) for plan in plans
    ]
    events: queue.Queue[Event] = queue.Queue()
    reading: Any = SimpleNamespace(events=events, expire=lambda: None)
    writer = BatchWriter(tap, streams, ChunkFiles(tmp_path, limit=4), reading)
    for plan in plans:
        writer._progress.opened(plan.stream, None)
        writer._columns[plan.stream] = ReadColumns(1, 1, ())
        events.put(Finished(plan, StreamEnd(end="1")))
    for stream in streams:
        writer.finish(stream, SimpleNamespace(increment=lambda _: None))  # type: ignore[arg-type]
    assert least <= len(written) <= most


def test_a_chunk_that_is_begun_while_the_run_ends_leaves_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = ChunkFiles(tmp_path, limit=4)
    late = files.new()
    remove_directory = os.rmdir

    def begin_a_chunk(path: str, **options: Any) -> None:
        with suppress(ChunkDirectoryError):
            ChunkFile(late)
        remove_directory(path, **options)

    monkeypatch.setattr(os, "rmdir", begin_a_chunk)
    files.close()
    assert [path.name for path in tmp_path.iterdir()] == ["lock"]
