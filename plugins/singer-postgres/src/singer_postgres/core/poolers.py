"""Checks whether a connection has one session of the server, and keeps it.

Settings, snapshots, temporary tables and advisory locks belong to a session. A pooler in transaction or statement mode
gives each transaction or statement another session, which lacks them, and passes the old session to other clients.

This works with both drivers: it uses only what psycopg2 and psycopg have in common.
"""

from __future__ import annotations

import os
import socket
import threading
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

from singer_postgres.core.errors import PoolerError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

# If others use the pool too, one round may keep the same session by chance. Eight rounds in a row won't.
_ROUNDS = 8
# a pool without a free connection would make us wait for minutes
_PATIENCE_S = 10.0
_PID = "select pg_catalog.pg_backend_pid()"
# host, port, database and user of poolers that were proven to keep sessions
_proven: set[tuple[Any, ...]] = set()
_proving = threading.Lock()


def require_session(connection: Any, another: Callable[[], Any], *, variables: str) -> None:
    """Raise if `connection`, which is new and in autocommit, doesn't keep a session of the server.

    This sets and locks nothing. On a direct connection it costs one short query. Through a pooler, the first check of a
    process costs some more queries, and a second connection for a moment.

    Args:
        another: opens a second connection of the same kind, in autocommit.
        variables: the variables that set the server's address, as in `TAP_POSTGRES_HOST and _PORT`.

    Raises:
        PoolerError: the connection keeps no session.
    """
    if why := fault(connection, another):
        info = connection.info
        msg = (
            f"{info.host}:{info.port} is a pooler that {why}, and this program needs a session that lasts: set "
            f"{variables} to the server itself, or to a pool with pool_mode = session."
        )
        raise PoolerError(msg)


def fault(connection: Any, another: Callable[[], Any]) -> str | None:
    """Return what is wrong with the pooler in between, for the message of `require_session`; None if nothing is.

    A server tells each client its process id at the start. A pooler makes up that number.
    """
    if server_pid(connection) == connection.info.backend_pid:
        return None
    info = connection.info
    pool = (info.host, info.port, info.dbname, info.user)
    with _proving:
        if pool in _proven:
            return None
        found = _lends(connection, another)
        if found is None:
            _proven.add(pool)
        return found


def require_settings(connection: Any, expected: Mapping[str, str], *, variables: str) -> None:
    """Raise if a pooler dropped startup settings of the session. The server reports the settings that it has.

    Args:
        expected: settings that servers report, as in `{"TimeZone": "UTC"}`. Of a list, only the first item is compared.

    Raises:
        PoolerError: the pooler dropped one.
    """
    info = connection.info
    for name, value in expected.items():
        found = info.parameter_status(name) or ""
        if found.partition(",")[0].lower() != value.partition(",")[0].lower():
            msg = (
                f"{info.host}:{info.port} is a pooler that drops a session's startup settings: {name} is "
                f"{found}, not {value}. Set {variables} to the server itself."
            )
            raise PoolerError(msg)


def server_pid(connection: Any) -> int:
    """Return the id of the server process that answers. Behind a pooler, the driver has another number."""
    with connection.cursor() as cursor:
        cursor.execute(_PID)
        (pid,) = cursor.fetchone()
    return int(pid)


def _lends(connection: Any, another: Callable[[], Any]) -> str | None:
    """Return how a pooler lends its sessions; None if a connection keeps its session as long as it lasts.

    While a connection is idle, a pooler in transaction mode gives its session to the next client. If the pool hands out
    the last session returned, the second connection gets it. If it hands out the first one, the same connection gets
    another. If the second connection holds a session in a transaction, a third is needed. A session that belongs to
    one connection never goes to another.
    """
    other = another()
    try:
        with _unprepared(connection), _unprepared(other), _impatient(connection, other) as gave_up:
            try:
                return "lends a session for one transaction" if _shared(connection, other) else None
            except Exception as error:
                if gave_up.is_set():
                    return f"gave no second session in {_PATIENCE_S:.0f} s (default_pool_size)"
                if "statement pooling" in str(error):
                    return "lends a session for one statement"
                raise
    finally:
        other.close()


def _shared(connection: Any, other: Any) -> bool:
    own = server_pid(connection)
    for _ in range(_ROUNDS):
        if server_pid(connection) != own:
            return True
        _run(other, "begin")
        # with a pool of one, the first connection would now wait forever
        if server_pid(other) == own or server_pid(connection) != own:
            return True
        _run(other, "rollback")
    return False


def _run(connection: Any, statement: str) -> None:
    with connection.cursor() as cursor:
        cursor.execute(statement)


@contextmanager
def _unprepared(connection: Any) -> Iterator[None]:
    """Keep psycopg from preparing a statement that it sees often: the next session may lack it."""
    before = getattr(connection, "prepare_threshold", None)
    if before is not None:
        connection.prepare_threshold = None
    try:
        yield
    finally:
        if before is not None:
            connection.prepare_threshold = before


@contextmanager
def _impatient(*connections: Any) -> Iterator[threading.Event]:
    """Break the connections if the check takes too long, and set the yielded event."""
    gave_up = threading.Event()

    def give_up() -> None:
        gave_up.set()
        for connection in connections:
            with suppress(Exception), socket.socket(fileno=os.dup(connection.fileno())) as line:
                line.shutdown(socket.SHUT_RDWR)

    timer = threading.Timer(_PATIENCE_S, give_up)
    timer.daemon = True
    timer.start()
    try:
        yield gave_up
    finally:
        timer.cancel()
