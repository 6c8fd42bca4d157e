"""Ends a long read of ours if another session waits to alter one of its tables.

A session that alters a table waits for all its readers, and all later sessions wait behind it. A comparison or a dump
reads its tables for long. So it ends if another session waits for it, and begins again once that one is done.
"""

from __future__ import annotations

import threading
import time
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

import psycopg

from tidemark.errors import TidemarkError
from tidemark.project import connections

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tidemark.project.database_settings import DatabaseSettings

_LOOK_EVERY_S = 0.25
# polite sessions wait again and again: within this time it is still the same wait
_SAME_S = 2.0
# try again after this time if the watch could not connect
_AGAIN_S = 10.0
ATTEMPTS = 5
# how long to wait before the next attempt, so that the other session gets the table
PAUSE_S = 1.0
_WAITING = """
    select waiting.pid, waiting.seconds, concat(
        'pid ', waiting.pid, ' (', concat_ws(', ', usename, nullif(application_name, '')), ')',
        coalesce(': ' || nullif(left(query, 80), ''), '')
    )
    from (
        select pid, coalesce(extract(epoch from clock_timestamp() - min(waitstart)), 0)::float as seconds
        from pg_catalog.pg_locks where not granted and locktype = 'relation' and pid <> %(ours)s group by pid
    ) waiting
    join pg_catalog.pg_stat_activity using (pid)
    where %(ours)s = any(pg_catalog.pg_blocking_pids(waiting.pid))
"""


class SessionEndedError(TidemarkError):
    """Our session was ended because another one waited for it. The message names that session."""


@contextmanager
def giving_way(
    side: DatabaseSettings,
    pid: int,
    *,
    patience_s: float = 1.0,
    polite: bool = True,
    let_go: Callable[[], object] = lambda: None,
) -> Iterator[None]:
    """End a session of ours if another one waits for its locks for more than a moment.

    Args:
        pid: the server's process id of our session. It is terminated, and its next statement fails.
        patience_s: how long another session may wait.
        polite: also count sessions that wait for half a second at a time, let others pass and try again, as target and
            dbt do. They make nobody else wait, but they give up in the end.
        let_go: also called, from another thread, to stop work that doesn't end with the session.

    Raises:
        SessionEndedError: the session was ended.
    """
    watch = _Watch(side, pid, patience_s, let_go, polite=polite)
    watch.start()
    try:
        yield
    except SessionEndedError:
        raise
    except Exception as error:
        if watch.waiter is not None:
            raise SessionEndedError(watch.waiter) from error
        raise
    finally:
        watch.over.set()
        watch.join(timeout=_AGAIN_S)


class _Watch(threading.Thread):
    def __init__(
        self, side: DatabaseSettings, pid: int, patience_s: float, let_go: Callable[[], object], *, polite: bool
    ) -> None:
        super().__init__(name=f"lock-watch-{pid}", daemon=True)
        self._side = side
        self._pid = pid
        self._patience_s = patience_s
        self._polite = polite
        self._let_go = let_go
        self._seen: dict[int, tuple[float, float]] = {}
        self.over = threading.Event()
        self.waiter: str | None = None

    def run(self) -> None:
        while not self.over.wait(_LOOK_EVERY_S):
            # without a second connection, the work goes on unwatched
            with suppress(psycopg.Error, TidemarkError), connections.connect(self._side) as connection:
                if self._look_on(connection):
                    return
            self.over.wait(_AGAIN_S)

    def _look_on(self, connection: psycopg.Connection[Any]) -> bool:
        """Watch until the work is over, or until another session has waited too long."""
        while not self.over.wait(_LOOK_EVERY_S):
            for pid, seconds, who in connection.execute(_WAITING, {"ours": self._pid}).fetchall():
                if seconds >= self._patience_s or (self._polite and self._has_waited(pid)):
                    self.waiter = who
                    connection.execute("select pg_catalog.pg_terminate_backend(%s)", [self._pid])
                    self._let_go()
                    return True
        return True

    def _has_waited(self, pid: int) -> bool:
        now = time.monotonic()
        first, last = self._seen.get(pid, (now, now))
        if now - last > _SAME_S:
            first = now
        self._seen[pid] = (first, now)
        return now - first >= self._patience_s
