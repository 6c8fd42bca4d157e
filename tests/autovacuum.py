"""Keeps autovacuum at a table for longer than a test lasts, as it is at a table of millions of rows after its first load."""

from __future__ import annotations

import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import psycopg

# after one row, and then less than ten pages in a second
_SLOW = """
    alter table {} set (
        autovacuum_vacuum_threshold = 1, autovacuum_vacuum_scale_factor = 0,
        autovacuum_vacuum_cost_delay = 100, autovacuum_vacuum_cost_limit = 1
    )
"""
_AT_WORK = "select count(*) from pg_stat_progress_vacuum where relid = %s::regclass"


@contextmanager
def at_work(connect: Callable[[], psycopg.Connection[Any]], table: str) -> Iterator[None]:
    """Wait until autovacuum is at a table, all of whose rows were just updated."""
    with connect() as connection:
        connection.execute("alter system set autovacuum_naptime = 1")
        connection.execute("select pg_reload_conf()")
        connection.execute(_SLOW.format(table).encode())
        deadline = time.monotonic() + 60
        while connection.execute(_AT_WORK, [table]).fetchone() == (0,):
            assert time.monotonic() < deadline, "autovacuum did not come"
            time.sleep(0.1)
        try:
            yield
        finally:
            connection.execute("alter system reset autovacuum_naptime")
            connection.execute("select pg_reload_conf()")
