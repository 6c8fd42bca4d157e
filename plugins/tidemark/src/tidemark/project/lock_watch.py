"""Lets go of tables that a long reading of ours holds when somebody waits to alter one.

Whoever alters a table waits for all who read it, and all who come later wait behind that. A comparison or a dump holds
its tables for as long as it takes; so it ends when somebody waits for it, and is begun again once they are through.
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

    from tidemark.project.settings import DatabaseSettings

_LOOK_EVERY_S = 0.25
# a polite waiter comes and goes: it is the same one within this time
_SAME_S = 2.0
# to be looked for once in a while even where nobody could be seen
_AGAIN_S = 10.0
ATTEMPTS = 5
# how long to leave a table to those that were let through
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


class GaveWayError(TidemarkError):
    """What was under way was ended, as somebody waited for it; its text is who."""


@contextmanager
def giving_way(
    side: DatabaseSettings,
    pid: int,
    *,
    patience_s: float = 1.0,
    polite: bool = True,
    let_go: Callable[[], object] = lambda: None,
) -> Iterator[None]:
    """End a session of ours if somebody waits for its locks for longer than a moment.

    Args:
        pid: of the session, as its server has it; it is ended, and its next statement fails.
        patience_s: how long somebody may wait.
        polite: count those too that wait for half a second at a time, let others pass and try again, as target and dbt
            do: they keep nobody else waiting, and give up in the end.
        let_go: called besides, from another thread: ends what the session's end doesn't.

    Raises:
        GaveWayError: it was ended.
    """
    watch = _Watch(side, pid, patience_s, let_go, polite=polite)
    watch.start()
    try:
        yield
    except GaveWayError:
        raise
    except Exception as error:
        if watch.waiter is not None:
            raise GaveWayError(watch.waiter) from error
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
            # the work goes on unwatched where there is no second connection to be had
            with suppress(psycopg.Error, TidemarkError), connections.connect(self._side) as connection:
                if self._look_on(connection):
                    return
            self.over.wait(_AGAIN_S)

    def _look_on(self, connection: psycopg.Connection[Any]) -> bool:
        """Look until it is over, or somebody has waited for long enough."""
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
