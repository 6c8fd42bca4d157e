"""Tells the tap which positions are committed, and that a long merge is at work: through the FIFO that each cut names.

The tap ends the source's session after a standstill. A merge of a large transaction is none, so a sign of life is sent
while the warehouse answers and the merging session waits for nobody's lock.
"""

from __future__ import annotations

import os
import threading
from contextlib import closing, contextmanager, suppress
from typing import TYPE_CHECKING, Any

import psycopg

from singer_postgres.core.errors import SingerPostgresError
from singer_postgres.core.wire import ALIVE

if TYPE_CHECKING:
    from collections.abc import Iterator

    from singer_postgres.core.warehouse.connections import WarehouseConnector
    from singer_postgres.core.wire import Cut

_EVERY_S = 5.0
_WAITS = """
    select coalesce(wait_event_type = 'Lock', false) from pg_catalog.pg_stat_activity where pid = %s
"""


def acknowledge(cut: Cut) -> None:
    """Tell the tap that a cut is committed. If it is gone, it reads the slot's position at its next start."""
    _tell(cut.acknowledge, cut.end)


def _tell(fifo: str, line: str) -> None:
    with suppress(OSError):
        file = os.open(fifo, os.O_WRONLY | os.O_NONBLOCK)
        try:
            os.write(file, f"{line}\n".encode())
        finally:
            os.close(file)


class LifeSigns:
    """Signs of life during long work on one connection.

    Attributes:
        fifo: where to write them; nowhere before the first cut.
    """

    def __init__(self, warehouse: WarehouseConnector) -> None:
        """Send nothing yet."""
        self.fifo = ""
        self._warehouse = warehouse

    @contextmanager
    def during(self, connection: psycopg.Connection[Any]) -> Iterator[None]:
        """Send signs until the work in this block is over."""
        ended = threading.Event()
        pid = connection.info.backend_pid
        thread = threading.Thread(target=self._send, args=(pid, ended), name="life-signs", daemon=True)
        thread.start()
        try:
            yield
        finally:
            ended.set()

    def _send(self, pid: int, ended: threading.Event) -> None:
        while not ended.wait(_EVERY_S):
            with suppress(psycopg.Error, SingerPostgresError), closing(self._warehouse.connect_once()) as watching:
                while not ended.is_set():
                    row = watching.execute(_WAITS, [pid]).fetchone()
                    if row and not row[0]:
                        _tell(self.fifo, ALIVE)
                    ended.wait(_EVERY_S)
