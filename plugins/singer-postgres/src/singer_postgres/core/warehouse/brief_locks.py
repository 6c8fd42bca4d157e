"""Transactions that need a lock which readers hold. They never wait at the head of the lock queue for long.

A session that waits for a table's lock makes all later sessions wait too. So each attempt waits half a second at most,
rolls back with all its locks, and lets the others pass before the next attempt.

Autovacuum gives way only to sessions that have waited for `deadlock_timeout`, a second by default, and it holds a large
table's lock for minutes, most of all after a first load. If it is in the way, an attempt now and then waits for so long.
"""

from __future__ import annotations

import logging
import math
import random
import time
from typing import TYPE_CHECKING, Any, TypeVar

from singer_postgres.core.errors import LockBusyError, one_line
from singer_postgres.core.sql_compat import Error, errors, sql

if TYPE_CHECKING:
    from collections.abc import Callable

    import psycopg

    Connection = psycopg.Connection[Any]

_T = TypeVar("_T")
_LOGGER = logging.getLogger("target-postgres")
# PQTRANS_IDLE of libpq
_NO_TRANSACTION = 0
_ATTEMPT_MS = 500
_PAUSE_S = (0.2, 0.5)
_TELL_EVERY_S = 30.0
# how often an attempt waits until autovacuum gives way, how much longer than it takes that, and the longest such wait
_VACUUM_EVERY_S = 10.0
_VACUUM_MORE_MS = 500
_VACUUM_MOST_MS = 3_000
# for work that the next run can do as well
_BRIEFLY_S = 5.0
_TIMEOUT = "select setting::int from pg_catalog.pg_settings where name = 'lock_timeout'"
# The sessions that lock a table, its partitions, or the views on it, which are dropped and recreated with it. Sessions of
# a database that have no user are autovacuum's: it needs no rights to see that, unlike their `backend_type`.
_HOLDERS = """
    with recursive relations(oid) as (
        select to_regclass(%s)::oid
        union
        select r.ev_class from relations
        join pg_catalog.pg_depend d on d.refclassid = 'pg_catalog.pg_class'::regclass and d.refobjid = relations.oid
            and d.classid = 'pg_catalog.pg_rewrite'::regclass
        join pg_catalog.pg_rewrite r on r.oid = d.objid
    ), holders as (
        select l.pid, mode, usename, application_name, xact_start,
            a.datid is not null and a.usesysid is null as is_autovacuum
        from pg_catalog.pg_locks l left join pg_catalog.pg_stat_activity a using (pid)
        where locktype = 'relation' and granted and l.pid <> pg_backend_pid()
            and database = (select oid from pg_catalog.pg_database where datname = current_database())
            and relation in (
                select oid from relations union all select relid from relations, pg_catalog.pg_partition_tree(oid)
            )
    )
"""
_TOLD = """
    select distinct concat('pid ', pid, ' (', concat_ws(', ', case when is_autovacuum then 'autovacuum' else usename end,
        nullif(application_name, ''), 'since ' || to_char(xact_start at time zone 'UTC', 'HH24:MI:SS UTC')), ')')
    from holders order by 1 limit 3
"""
_VACUUM_MS = """
    select setting::int from pg_catalog.pg_settings where name = 'deadlock_timeout'
        and exists (select from holders where is_autovacuum and mode = 'ShareUpdateExclusiveLock')
"""


def with_brief_locks(
    connection: Connection, attempt: Callable[[], _T], *, table: sql.Identifier, patience_s: float | None = None
) -> _T:
    """Run `attempt` in a transaction that never waits long for a lock, and return its result.

    Inside a transaction of the caller it runs once, as a part of that transaction.

    Args:
        table: the table that `attempt` locks, together with the views on it.
        patience_s: seconds to keep trying; default: the session's lock_timeout, where 0 means forever.

    Raises:
        LockBusyError: other sessions held the locks all that time; the message names them.
    """
    if connection.info.transaction_status != _NO_TRANSACTION:
        with connection.transaction():
            return attempt()
    row = connection.execute(_TIMEOUT).fetchone()
    assert row
    timeout_s = row[0] / 1000
    patience_s = timeout_s if patience_s is None else patience_s
    at_once = wait_ms = min(_ATTEMPT_MS, row[0] or _ATTEMPT_MS)
    began = warned = time.monotonic()
    vacuum_met = -math.inf
    while True:
        try:
            with connection.transaction():
                connection.execute(sql.SQL("SET LOCAL lock_timeout = {}").format(wait_ms))
                return attempt()
        except (errors.LockNotAvailable, errors.DeadlockDetected) as error:
            now = time.monotonic()
            if patience_s and now - began >= patience_s:
                names = ".".join(table._obj)  # noqa: SLF001 - has no public name
                msg = (
                    f"{names} could not be altered within {patience_s:g} s (lock_timeout), because other sessions kept "
                    f"it locked: {_holders(connection, table)}. Wait for them or end them (pg_terminate_backend), then "
                    "run this again."
                )
                raise LockBusyError(msg) from error
            if warned == began or now - warned >= _TELL_EVERY_S:
                warned = now
                _LOGGER.warning(
                    "Altering a table waits for other sessions: table=%s, sessions=%s",
                    table.as_string(connection),
                    _holders(connection, table),
                )
            wait_ms = at_once
            if now - vacuum_met >= _VACUUM_EVERY_S and (vacuum_ms := _vacuum_ms(connection, table)):
                # also if it does not give way, because it prevents a wraparound
                wait_ms, vacuum_met = vacuum_ms, now
            time.sleep(random.uniform(*_PAUSE_S))  # noqa: S311 - no secret


def if_possible(
    connection: Connection, attempt: Callable[[], object], *, table: sql.Identifier, patience_s: float = _BRIEFLY_S
) -> None:
    """Do work that the next run can do as well. No error of a statement fails the caller, whose rows are committed.

    Other sessions may hold the locks for more than some seconds, the disk be full, or a person cancel it.
    """
    try:
        with_brief_locks(connection, attempt, table=table, patience_s=patience_s)
    except LockBusyError as error:
        _LOGGER.info("Left to the next run: reason=%s", error)
    except Error as error:
        _LOGGER.warning("Left to the next run: table=%s, error=%s", table.as_string(), one_line(error))


def _holders(connection: Connection, table: sql.Identifier) -> str:
    rows = connection.execute(_HOLDERS + _TOLD, [table.as_string(connection)]).fetchall()
    return ", ".join(who for (who,) in rows) or "sessions that no longer lock it"


def _vacuum_ms(connection: Connection, table: sql.Identifier) -> int | None:
    """Return how long to wait until autovacuum gives way; None if it is not in the way, or that would be too long."""
    row = connection.execute(_HOLDERS + _VACUUM_MS, [table.as_string(connection)]).fetchone()
    return row[0] + _VACUUM_MORE_MS if row and row[0] <= _VACUUM_MOST_MS - _VACUUM_MORE_MS else None
