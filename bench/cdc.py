"""`python -m bench.cdc`: how fast changes of the log are decoded and loaded into a large table, and how late they come.

Options: ROWS (of the table), CHANGES (of the backlog), SECONDS (to follow), RATE (changes a second meanwhile).
"""

from __future__ import annotations

import logging
import os
import queue
import resource
import statistics
import subprocess
import tempfile
import threading
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg
from rich.console import Console
from tests.conftest import REPOSITORY
from tests.integration.conftest import make_checkout
from tests.singer.conftest import Pipe

from bench import report
from singer_postgres.core import session
from singer_postgres.core.source import log_tables
from singer_postgres.core.source.slot_wal import SlotBudget
from singer_postgres.tap.chunk_files import ChunkFiles
from singer_postgres.tap.events import ChangesRead, CutReached, Failed
from singer_postgres.tap.log import following
from singer_postgres.tap.log.log_reader import LogReader, LogSettings
from singer_postgres.tap.log.replication import Replication
from singer_postgres.tap.log.slot_watch import SlotWatch
from singer_postgres.tap.stream_plan import StreamPlan

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.integration.conftest import Checkout

_CONSOLE = Console()
_LOG_BASED = {"public-items": {"replication-method": "LOG_BASED"}}
_SLOT = log_tables.name_of("tap-postgres")
_COLUMNS = ("id", "order_id", "product_id", "quantity", "unit_price", "discount", "created_at", "updated_at")
_TABLE = """
    create table items (
        id bigint primary key, order_id bigint, product_id bigint, quantity int not null,
        unit_price numeric(12, 2) not null, discount numeric(12, 2), created_at timestamptz,
        updated_at timestamptz not null
    )
"""
_FILL = """
    insert into items
    select i, i / 3, mod(i, 1000), mod(i, 7) + 1, mod(i, 10000) / 100.0, mod(i, 100) / 100.0, now(), now()
    from generate_series(%s::bigint, %s::bigint) i
"""
# as many transactions as a busy application would make, at keys all over the table
_CHANGE = """
    update items set quantity = quantity + 1, updated_at = clock_timestamp()
    where id = any (array(select 1 + floor(random() * {rows})::bigint from generate_series(1, {count})))
"""
_A_TRANSACTION = 100


def main() -> None:
    """Measure, and print a table of the figures."""
    rows = int(os.environ.get("ROWS") or 10_000_000)
    changes = int(os.environ.get("CHANGES") or 1_000_000)
    seconds, rate = float(os.environ.get("SECONDS") or 600), int(os.environ.get("RATE") or 2000)
    work = REPOSITORY / ".tidemark" / "bench"
    work.mkdir(parents=True, exist_ok=True)
    with (
        contextmanager(make_checkout)("embedded", parent=work) as checkout,
        tempfile.TemporaryDirectory(dir=work) as directory,
    ):
        pipe = _pipe(checkout, Path(directory))
        with _CONSOLE.status(f"Making a table of {rows:,} rows, and loading it"):
            pipe.do(_TABLE)
            with pipe.source() as connection:
                connection.execute(_FILL, [1, rows])
                connection.execute("vacuum analyze items")
                connection.execute("checkpoint")
            pipe.do(f"create publication {_SLOT} for table items")
            pipe.do(f"select pg_create_logical_replication_slot('{_SLOT}', 'pgoutput')")
            pipe.state = pipe.sync(_LOG_BASED).ok().state
        machine = report.about(checkout)
        lines = [
            _decoded(pipe, rows, changes),
            _backlog(pipe, rows, changes, writing=False),
            _backlog(pipe, rows, changes, writing=True),
            *_followed(pipe, rows, seconds, rate),
        ]
    _CONSOLE.print(f"{machine}; a table of {rows:,} rows with 8 columns, updates at random keys")
    for line in lines:
        _CONSOLE.print(line)


def _pipe(checkout: Checkout, directory: Path) -> Pipe:
    checkout.tidemark("up")
    with checkout.connect("source", "postgres") as connection:
        connection.execute("alter system set wal_level = logical")
    checkout.tidemark("down")
    checkout.tidemark("up")
    urls = []
    for side in ("source", "warehouse"):
        with checkout.connect(side, "postgres") as connection:
            connection.execute("create database cdc")
        urls.append(psycopg.conninfo.make_conninfo(checkout.urls[side], dbname="cdc"))
    pipe = Pipe(urls[0], urls[1], directory)
    pipe.tap["max_parallel"] = 2
    return pipe


def _write(pipe: Pipe, rows: int, changes: int) -> None:
    """Update random rows, in transactions of some rows each."""
    with pipe.source() as connection:
        for _ in range(0, changes, _A_TRANSACTION):
            connection.execute(_CHANGE.format(rows=rows, count=_A_TRANSACTION).encode())


def _decoded(pipe: Pipe, rows: int, changes: int) -> str:
    """Decode a backlog into files that nobody loads, and confirm nothing."""
    _write(pipe, rows, changes)
    plan = StreamPlan("public-items", "public", "items", "LOG_BASED", _COLUMNS, ("id",))
    with pipe.source() as connection:
        found = following.prepare(
            connection,
            [(plan, None)],
            slot=_SLOT,
            publication=_SLOT,
            failed=_raise,
            logger=logging.getLogger(__name__),
        )
    events: queue.Queue[Any] = queue.Queue()
    files = ChunkFiles(pipe.directory / "decoded", limit=4)

    def connect() -> Replication:
        replication = Replication(pipe.source_url)
        replication.set(session.SETTINGS)
        return replication

    reader = LogReader(
        connect,
        slot=_SLOT,
        publication=_SLOT,
        binary=found.binary,
        streams=found.streams,
        confirmed=found.confirmed,
        end=found.end,
        describe=lambda stream, _: (stream.table, stream.columns, True),
        mask_secret=None,
        files=files,
        settings=LogSettings(),
        events=events,
        slot_watch=SlotWatch(SlotBudget(), _SLOT, pipe.source, logging.getLogger(__name__)),
    )
    reader.loaded("public-items", found.end)
    count, began, cpu = 0, time.monotonic(), time.process_time()
    reader.start()
    while True:
        match events.get():
            case ChangesRead(_, read, path):
                count += read.rows
                files.announce(path)
                path.unlink()
            case CutReached(cut) if cut.last:
                break
            case Failed(error):
                raise error
    took, cpu = time.monotonic() - began, time.process_time() - cpu
    # nothing was loaded, so nothing is confirmed: the next measurement loads the same changes
    with pipe.source() as connection:
        connection.execute("select pg_terminate_backend(active_pid, 5000) from pg_replication_slots")
    files.stop()
    files.close()
    each = f"{cpu / count * 1e6:.1f} µs of CPU each"
    return f"decode alone: {count / took:,.0f} changes/s ({count:,} in {took:.1f} s, {each})"


def _raise(_: str, error: Exception) -> None:
    raise error


def _backlog(pipe: Pipe, rows: int, changes: int, *, writing: bool) -> str:
    """Load what `_decoded` left, or a new backlog while writers write."""
    ended = threading.Event()
    writer = threading.Thread(target=_write_until, args=(pipe, rows, ended, None))
    if writing:
        _write(pipe, rows, changes)
        writer.start()
    before = _totals(pipe)
    began = time.monotonic()
    done = pipe.sync(_LOG_BASED, pipe.state).ok()
    took = time.monotonic() - began
    ended.set()
    if writing:
        writer.join()
    pipe.state = done.state
    count, copying, merging = (after - at_start for after, at_start in zip(_totals(pipe), before, strict=True))
    what = "a backlog while writers write" if writing else "a backlog"
    parts = f"with the start of tap and target; staging {copying:.1f} s, merging {merging:.1f} s"
    return f"{what}: {count / took:,.0f} changes/s ({count:,.0f} in {took:.1f} s, {parts})"


def _totals(pipe: Pipe) -> tuple[float, float, float]:
    """Return the rows that all runs have read, and the seconds for which they staged and merged them."""
    with pipe.warehouse() as connection:
        row = connection.execute(
            "select sum(rows_read)::bigint, coalesce(sum(seconds_copying), 0), coalesce(sum(seconds_merging), 0) "
            "from raw._tidemark_runs"
        ).fetchone()
    assert row
    return row[0], row[1], row[2]


def _write_until(pipe: Pipe, rows: int, ended: threading.Event, rate: int | None) -> None:
    """Update rows until `ended`; at a rate, in changes a second, if there is one."""
    size = _A_TRANSACTION if rate is None else max(1, rate // 100)
    with pipe.source() as connection:
        began, written = time.monotonic(), 0
        while not ended.is_set():
            connection.execute(_CHANGE.format(rows=rows, count=size).encode())
            written += size
            if rate is not None:
                time.sleep(max(0.0, written / rate - (time.monotonic() - began)))


def _followed(pipe: Pipe, rows: int, seconds: float, rate: int) -> Iterator[str]:
    """Follow writers, and look each moment how old the newest row is that the warehouse has."""
    pipe.tap["replication_max_run_seconds"] = seconds
    ended = threading.Event()
    delays: list[float] = []
    threads = [
        threading.Thread(target=_write_until, args=(pipe, rows, ended, rate)),
        threading.Thread(target=_measure, args=(pipe, ended, delays)),
    ]
    processes = pipe.start(_LOG_BASED, pipe.state)
    # the first cut takes what came while tap and target were starting
    time.sleep(min(5.0, seconds / 4))
    for thread in threads:
        thread.start()
    memory = _memory([process.pid for process in processes], ended)
    for process in processes:
        process.wait()
    ended.set()
    for thread in threads:
        thread.join()
    pipe.state = pipe.finish(processes).ok().state
    delays.sort()
    yield (
        f"followed {rate:,} changes/s for {seconds:.0f} s: p50 {statistics.median(delays):.1f} s, "
        f"p95 {delays[int(len(delays) * 0.95)]:.1f} s, the worst {delays[-1]:.1f} s, from commit to commit"
    )
    yield f"memory of tap and target meanwhile: {max(memory()):.0f} MB at most"


def _measure(pipe: Pipe, ended: threading.Event, delays: list[float]) -> None:
    """Write a row now and then, and note how long it takes until the warehouse has it."""
    with pipe.source() as source, pipe.warehouse() as warehouse:
        number = 0
        while not ended.wait(0.5):
            number -= 1
            source.execute(_FILL, [number, number])
            began = time.monotonic()
            while warehouse.execute("select from raw.items where id = %s", [number]).fetchone() is None:
                if ended.wait(0.02):
                    return
            delays.append(time.monotonic() - began)


def _memory(pids: list[int], ended: threading.Event) -> Any:
    """Return a function that returns the resident memory of processes and their children over time, in MB."""
    found: list[float] = []

    def watch() -> None:
        while not ended.wait(1):
            done = subprocess.run(
                ["ps", "-o", "rss=", "-p", ",".join(map(str, pids))], capture_output=True, text=True, check=False
            )
            found.append(sum(int(line) for line in done.stdout.split()) / 1024)

    threading.Thread(target=watch, daemon=True).start()
    return lambda: found or [resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024]


if __name__ == "__main__":
    main()
