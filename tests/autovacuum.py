"""Keeps autovacuum at a table for longer than a test lasts, as it is at a table of millions of rows."""

from __future__ import annotations

import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import psycopg

_SETTINGS = {
    "autovacuum_vacuum_threshold": 1,
    "autovacuum_vacuum_scale_factor": 0,
    # less than ten pages in a second
    "autovacuum_vacuum_cost_delay": 100,
    "autovacuum_vacuum_cost_limit": 1,
}
_AT_WORK = "select count(*) from pg_stat_progress_vacuum where relid = %s::regclass"
_COMPLETED = "select autovacuum_count from pg_stat_user_tables where relid = %s::regclass"


@contextmanager
def at_work(connect: Callable[[], psycopg.Connection[Any]], table: str) -> Iterator[None]:
    """Wait until autovacuum is at a table whose rows were just updated; check at the end that it was interrupted."""
    with connect() as connection:
        try:
            connection.execute("alter system set autovacuum_naptime = 1")
            connection.execute("select pg_reload_conf()")
            slow = ", ".join(f"{name} = {value}" for name, value in _SETTINGS.items())
            connection.execute(f"alter table {table} set ({slow})".encode())
            before = connection.execute(_COMPLETED, [table]).fetchone()
            deadline = time.monotonic() + 60
            while connection.execute(_AT_WORK, [table]).fetchone() == (0,):
                assert time.monotonic() < deadline, "autovacuum did not come"
                time.sleep(0.1)
            yield
            assert connection.execute(_COMPLETED, [table]).fetchone() == before, "autovacuum was not interrupted"
        finally:
            connection.execute("alter system reset autovacuum_naptime")
            connection.execute("select pg_reload_conf()")
            connection.execute(f"alter table {table} reset ({', '.join(_SETTINGS)})".encode())
