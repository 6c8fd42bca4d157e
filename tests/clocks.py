"""Readers that measure how long they waited while something else ran."""

from __future__ import annotations

import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import psycopg

# generous: one attempt waits half a second, and the machine may be busy
LONGEST_S = 4.0


@contextmanager
def reader(connect: Callable[[], psycopg.Connection[Any]], query: str) -> Iterator[list[float]]:
    """Run a query over and over; yield the seconds of each, and check that none took long."""
    took: list[float] = []
    over = threading.Event()

    def read() -> None:
        with connect() as connection:
            while not over.is_set():
                began = time.monotonic()
                # so that a hang shows as a long wait, not as a test that never ends
                connection.execute("set statement_timeout = '30s'")
                connection.execute(query)
                took.append(time.monotonic() - began)
                time.sleep(0.05)

    thread = threading.Thread(target=read, daemon=True)
    thread.start()
    try:
        yield took
    finally:
        over.set()
        thread.join(timeout=40)
    assert took
    assert max(took) < LONGEST_S, f"a reader waited {max(took):.1f} s"
