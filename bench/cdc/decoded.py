"""How fast the tap decodes, without a target."""

from __future__ import annotations

import logging
import queue
import time
from typing import TYPE_CHECKING, Any

from bench.cdc.ours import SLOT
from singer_postgres.core import session
from singer_postgres.core.source.slot_wal import SlotBudget
from singer_postgres.tap.chunk_files import ChunkFiles
from singer_postgres.tap.events import ChangesRead, CutReached, Failed
from singer_postgres.tap.log import following
from singer_postgres.tap.log.log_reader import LogReader, LogSettings
from singer_postgres.tap.log.replication import Replication
from singer_postgres.tap.log.slot_watch import SlotWatch
from singer_postgres.tap.stream_plan import StreamPlan

if TYPE_CHECKING:
    from tests.singer.conftest import Pipe

_COLUMNS = ("id", "order_id", "product_id", "quantity", "unit_price", "discount", "created_at", "updated_at")


def measure(pipe: Pipe) -> dict[str, float]:
    """Decode the backlog into files that nobody loads, and confirm nothing."""
    plan = StreamPlan("public-items", "public", "items", "LOG_BASED", _COLUMNS, ("id",))
    with pipe.source() as connection:
        found = following.prepare(
            connection,
            [(plan, None)],
            slot=SLOT,
            publication=SLOT,
            failed=_raise,
            logger=logging.getLogger(__name__),
            is_comparable=True,
        )
    events: queue.Queue[Any] = queue.Queue()
    files = ChunkFiles(pipe.directory / "decoded", limit=4)

    def connect() -> Replication:
        replication = Replication(pipe.source_url)
        replication.set(session.SETTINGS)
        return replication

    reader = LogReader(
        connect,
        slot=SLOT,
        publication=SLOT,
        binary=found.binary,
        streams=found.streams,
        confirmed=found.confirmed,
        end=found.end,
        describe=lambda stream, _: (stream.table, stream.columns, True),
        mask_secret=None,
        files=files,
        settings=LogSettings(),
        events=events,
        slot_watch=SlotWatch(SlotBudget(), SLOT, pipe.source, logging.getLogger(__name__)),
        hasten=lambda: None,
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
        connection.execute(
            "select pg_terminate_backend(active_pid, 5000) from pg_replication_slots where active_pid is not null"
        )
    files.stop()
    files.close()
    return {"changes": count, "seconds": took, "cpu_us_per_change": cpu / count * 1e6}


def _raise(_: str, error: Exception) -> None:
    raise error
