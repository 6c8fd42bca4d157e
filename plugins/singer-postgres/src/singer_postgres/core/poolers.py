"""Whether a connection is a session of the server's, and stays one.

Settings, snapshots, stages and advisory locks are a session's. A pooler that lends its connections by the transaction
or by the statement gives each of them another session, in which they aren't, and leaves them to somebody else.

For both drivers: what is asked of a connection is what psycopg2 and psycopg have alike.
"""

from __future__ import annotations

import os
import socket
import threading
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

from singer_postgres.core.errors import RunError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

# In a pool that others use, too, a round may see by chance what a session would show; that many of them don't.
_ROUNDS = 8
# what a pool without room makes us wait for would be minutes
_PATIENCE_S = 10.0
_PID = "select pg_catalog.pg_backend_pid()"
# host, port, database and user of poolers that were found to keep sessions
_proven: set[tuple[Any, ...]] = set()
_proving = threading.Lock()


class PoolerError(RunError):
    """There is no session to be had here."""


def require_session(connection: Any, another: Callable[[], Any], *, variables: str) -> None:
    """Stop if `connection`, which is new and in autocommit, is no session of the server's.

    Nothing is set or locked in it. A connection to the server itself costs one short query; one to a pooler, the first
    in a process, some more and a second connection for a moment.

    Args:
        another: gives a second connection of the same kind, in autocommit.
        variables: that say where connections go, as in `TAP_POSTGRES_HOST and _PORT`.

    Raises:
        PooledError: it is none.
    """
    if why := fault(connection, another):
        info = connection.info
        msg = (
            f"{info.host}:{info.port} is a pooler that {why}, and what is done here needs a session that stays: in "
            f"{variables}, name the server itself, or a pool with pool_mode = session."
        )
        raise PoolerError(msg)


def fault(connection: Any, another: Callable[[], Any]) -> str | None:
    """Return what is wrong with the pooler that is in between, as `require_session` says it; None if nothing is.

    The number of its process, which a server tells each client at the start, is made up by a pooler.
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


def require_settings(connection: Any, told: Mapping[str, str], *, variables: str) -> None:
    """Stop if a pooler left out what the session was told at its start; the server tells each of them back.

    Args:
        told: settings that servers report, as in `{"TimeZone": "UTC"}`; of a list, the first.

    Raises:
        PooledError: it did.
    """
    info = connection.info
    for name, value in told.items():
        found = info.parameter_status(name) or ""
        if found.partition(",")[0].lower() != value.partition(",")[0].lower():
            msg = (
                f"{info.host}:{info.port} is a pooler that drops what a session is told at its start: {name} is "
                f"{found}, not {value}. In {variables}, name the server itself."
            )
            raise PoolerError(msg)


def server_pid(connection: Any) -> int:
    """Return the process of the server's that answers, which is not what the driver knows of behind a pooler."""
    with connection.cursor() as cursor:
        cursor.execute(_PID)
        (pid,) = cursor.fetchone()
    return int(pid)


def _lends(connection: Any, another: Callable[[], Any]) -> str | None:
    """Return how a pooler lends its sessions, or None if for as long as a connection lasts.

    While a connection is idle, the session that it had goes to whoever asks next: the one that was given back last, so
    that a second connection has it, or the one that was given back first, so that the same connection has another. If
    a second connection keeps one, a third has to do. Nobody else is ever given what is a connection's own.
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
        # of a pool of one, the first connection would now wait for ever for another
        if server_pid(other) == own or server_pid(connection) != own:
            return True
        _run(other, "rollback")
    return False


def _run(connection: Any, statement: str) -> None:
    with connection.cursor() as cursor:
        cursor.execute(statement)


@contextmanager
def _unprepared(connection: Any) -> Iterator[None]:
    """Keep psycopg from preparing a statement that it sees often: the next session may not have it."""
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
    """Break the connections when it takes too long; the event that is yielded is set then."""
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
