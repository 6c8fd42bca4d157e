"""Transactions that need a lock which readers hold. They never wait at the head of the lock queue for long.

A session that waits for a table's lock makes all later sessions wait too. So each attempt waits half a second at most,
rolls back with all its locks, and lets the others pass before the next attempt.

Autovacuum gives way only to sessions that have waited for `deadlock_timeout`, a second by default, and it holds a large
table's lock for minutes, most of all after a first load. If it alone is in the way, one attempt in ten seconds waits
half a second longer than that. A vacuum that prevents a wraparound gives way to nobody.
"""

from __future__ import annotations

import logging
import math
import random
import time
from typing import TYPE_CHECKING, Any, TypeVar

from singer_postgres.core import prepared_transactions
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
# how often an attempt waits for autovacuum to give way, what is added to deadlock_timeout, and the longest such wait
_AUTOVACUUM_INTERVAL_S = 10.0
_AUTOVACUUM_MARGIN_MS = 500
_AUTOVACUUM_LIMIT_MS = 3_000
# for work that the next run can do as well
_BRIEFLY_S = 5.0
_TIMEOUT = "select setting::int from pg_catalog.pg_settings where name = 'lock_timeout'"
# The sessions that lock a table, its partitions, their TOAST tables, or the views on it, which are dropped and created
# again with it. Sessions of a database without a user are autovacuum's: all roles may see that, and not `backend_type`.
# A prepared transaction has no session.
_HOLDERS = f"""
    with recursive relations(oid) as (
        select to_regclass(%s)::oid
        union
        select r.ev_class from relations
        join pg_catalog.pg_depend d on d.refclassid = 'pg_catalog.pg_class'::regclass and d.refobjid = relations.oid
            and d.classid = 'pg_catalog.pg_rewrite'::regclass
        join pg_catalog.pg_rewrite r on r.oid = d.objid
    ), locked(oid) as (
        select oid from relations union select relid from relations, pg_catalog.pg_partition_tree(oid)
    ), seen as (
        select l.pid, mode, usename, application_name, xact_start, a.datid is not null as is_session,
            a.datid is not null and a.usesysid is null as is_autovacuum,
            {prepared_transactions.NAME_OF_HOLDER} as prepared
        from pg_catalog.pg_locks l left join pg_catalog.pg_stat_activity a using (pid)
        where locktype = 'relation' and granted and l.pid is distinct from pg_backend_pid()
            and database = (select oid from pg_catalog.pg_database where datname = current_database())
            and relation in (
                select oid from locked
                union all select reltoastrelid from pg_catalog.pg_class join locked using (oid)
            )
    ), holders as (
        -- one that is neither has ended since
        select * from seen where is_session or prepared is not null
    )
"""  # noqa: S608 - of constants
_HOLDER_NAMES = """
    select who from (
        select distinct prepared is null as is_session, coalesce(prepared, concat('pid ', pid, ' (', concat_ws(', ',
            case when is_autovacuum then 'autovacuum' else usename end, nullif(application_name, ''),
            'since ' || to_char(xact_start at time zone 'UTC', 'HH24:MI:SS UTC')), ')')) as who
        from holders
    ) named
    order by is_session, who limit 3
"""
_AUTOVACUUM_MS = """
    select setting::int from pg_catalog.pg_settings where name = 'deadlock_timeout'
        and (select bool_and(is_autovacuum) from holders)
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
    brief_ms = wait_ms = min(_ATTEMPT_MS, row[0] or _ATTEMPT_MS)
    began = warned = time.monotonic()
    waited_for_autovacuum_at = -math.inf
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
                    f"it locked: {_holders(connection, table)}. Wait for them or end them (pg_terminate_backend; a "
                    "prepared transaction: COMMIT PREPARED or ROLLBACK PREPARED), then run this again."
                )
                raise LockBusyError(msg) from error
            if warned == began or now - warned >= _TELL_EVERY_S:
                warned = now
                _LOGGER.warning(
                    "Altering a table waits for other sessions: table=%s, sessions=%s",
                    table.as_string(connection),
                    _holders(connection, table),
                )
            wait_ms = brief_ms
            if now - waited_for_autovacuum_at >= _AUTOVACUUM_INTERVAL_S:
                autovacuum_ms = _autovacuum_ms(connection, table)
                if autovacuum_ms and (not patience_s or autovacuum_ms <= patience_s * 1000):
                    wait_ms, waited_for_autovacuum_at = autovacuum_ms, now
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
    rows = connection.execute(_HOLDERS + _HOLDER_NAMES, [table.as_string(connection)]).fetchall()
    return ", ".join(who for (who,) in rows) or "sessions that no longer lock it"


def _autovacuum_ms(connection: Connection, table: sql.Identifier) -> int | None:
    """Return how long to wait for autovacuum to give way; None if others are in the way, or that would be too long."""
    row = connection.execute(_HOLDERS + _AUTOVACUUM_MS, [table.as_string(connection)]).fetchone()
    wait_ms = row[0] + _AUTOVACUUM_MARGIN_MS if row else None
    return wait_ms if wait_ms and wait_ms <= _AUTOVACUUM_LIMIT_MS else None
