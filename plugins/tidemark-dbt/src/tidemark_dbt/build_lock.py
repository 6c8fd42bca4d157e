"""The lock that keeps two runs from building the same models at once.

It is an advisory lock of a separate session, so the server frees it when its holder ends. The holder's other sessions
have the lock's name as their application_name, so the next holder finds those that outlived it.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import psycopg2
from dbt.adapters.contracts.connection import Connection, ConnectionState
from dbt.adapters.postgres.connections import PostgresConnectionManager
from dbt_common.exceptions import DbtBaseException, DbtRuntimeError

from singer_postgres.core import advisory_locks, errors, poolers, session
from singer_postgres.core.errors import PoolerError

if TYPE_CHECKING:
    from dbt.adapters.postgres.connections import PostgresCredentials

_LOOK_EVERY_S = 3.0
_VARIABLES = "DBT_POSTGRES_HOST and _PORT"
_open_by_dbt = PostgresConnectionManager.open
# variables that libpq sends to the server at the start of each of dbt's sessions
_TOLD = {"PGTZ": "TimeZone", "PGDATESTYLE": "DateStyle"}
_END_SESSIONS = """
    select pg_terminate_backend(pid, 10000) from pg_catalog.pg_stat_activity
    where application_name = %s and datname = current_database() and usename = session_user
        and pid <> pg_backend_pid()
"""


class BusyError(DbtRuntimeError):
    """Another run holds the lock."""

    kind = errors.BusyError


class PooledError(DbtRuntimeError):
    """A pooler in between keeps no sessions, or drops the settings that are sent at their start."""

    kind = errors.PoolerError


class BuildLock:
    """The lock of one database and target schema."""

    def __init__(self, credentials: PostgresCredentials) -> None:
        self._credentials = credentials
        self._key = advisory_locks.key("tidemark transform", credentials.schema)
        self._session: Any = None

    @property
    def name(self) -> str:
        """The application_name of its holder's sessions."""
        return f"dbt {self._key & 2**64 - 1:016x}"

    @property
    def session(self) -> Any:
        """The session that has it, in autocommit."""
        return self._session

    def acquire(self, *, starter: int | None) -> None:
        """Take the lock and keep it until this process ends.

        Args:
            starter: the pid of the process that started this one; this one must not outlive it.

        Raises:
            BusyError: another run holds it.
            DbtDatabaseError: the warehouse can't be reached.
        """
        self._session = self._connect()
        self._lock()
        with self._session.cursor() as cursor:
            # this process has the lock, so a session with its name belongs to a killed run
            cursor.execute(_END_SESSIONS, [self.name])
        threading.Thread(target=self._watch, args=(starter,), name="transform-lock", daemon=True).start()

    def _lock(self) -> None:
        if not advisory_locks.try_lock(self._session, self._key):
            raise BusyError(self._busy())

    def _connect(self) -> Any:
        opened = _open(self._credentials)
        _unlimit(opened)
        return opened

    def _busy(self) -> str:
        who = advisory_locks.holder(self._session, self._key) or "it has just ended"
        return (
            f"Another run is building the models of {self._credentials.database}, schema {self._credentials.schema} "
            f"({who}). Wait until it ends, then run this again."
        )

    def _watch(self, starter: int | None) -> None:
        """End dbt if the process that started it is gone, or if another run took the lock after a lost connection."""
        while True:
            time.sleep(_LOOK_EVERY_S)
            if starter is not None and os.getppid() != starter:
                return _end("The process that started this run is gone, so this run ends.")
            try:
                with self._session.cursor() as cursor:
                    cursor.execute("select")
            except psycopg2.Error:
                try:
                    self._session = self._connect()
                    self._lock()
                except BusyError as error:
                    return _end(f"The lock that keeps other runs out was lost. {error}")
                except (DbtBaseException, psycopg2.Error):
                    # the warehouse can't be reached, and dbt will notice that itself
                    continue


def require_session(credentials: PostgresCredentials) -> None:
    """Raise if a pooler keeps no sessions: dbt's temporary tables and settings need a lasting one.

    Raises:
        PooledError: a pooler keeps no session.
        DbtDatabaseError: the warehouse can't be reached.
    """
    _open(credentials).close()


def open_unlimited(connection: Connection) -> Connection:
    """Open a session for dbt without the role's transaction time-outs: building a model may take longer."""
    if connection.state == ConnectionState.OPEN:
        return connection
    opened = _open_by_dbt(connection)
    _unlimit(opened.handle)
    return opened


def _unlimit(handle: Any) -> None:
    with handle.cursor() as cursor:
        cursor.execute(session.as_sql(session.unlimited(int(cursor.connection.server_version))))
    if not handle.autocommit:
        handle.commit()


def _open(credentials: PostgresCredentials) -> Any:
    """Return a session in autocommit."""
    opened = _connect(credentials)
    told = {name: os.environ[variable] for variable, name in _TOLD.items() if os.environ.get(variable)}
    try:
        poolers.require_session(opened, lambda: _connect(credentials), variables=_VARIABLES)
        poolers.require_settings(opened, told, variables=_VARIABLES)
    except PoolerError as error:
        raise PooledError(str(error)) from error
    return opened


def _connect(credentials: PostgresCredentials) -> Any:
    connection = Connection(
        type="postgres",
        name="transform lock",
        state=ConnectionState.INIT,
        transaction_open=False,
        handle=None,
        credentials=credentials.replace(application_name="tidemark-dbt lock"),
    )
    handle = _open_by_dbt(connection).handle
    handle.autocommit = True
    return handle


def _end(why: str) -> None:
    # the reader of stderr may be gone too
    with suppress(OSError):
        sys.stderr.write(f"error: {why}\n")
        sys.stderr.flush()
    os.kill(os.getpid(), signal.SIGTERM)
