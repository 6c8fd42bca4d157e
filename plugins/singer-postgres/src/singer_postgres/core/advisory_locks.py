"""Advisory locks: the key of a named lock, taking it, and who holds it. For both drivers."""

from __future__ import annotations

import hashlib
from typing import Any, NamedTuple

_HOLDER = """
    select pid, application_name, coalesce(host(client_addr), 'this machine'),
        to_char(backend_start at time zone 'UTC', 'HH24:MI:SS')
    from pg_catalog.pg_locks left join pg_catalog.pg_stat_activity using (pid)
    where locktype = 'advisory' and granted and objsubid = 1
        and database = (select oid from pg_catalog.pg_database where datname = current_database())
        and case when %(key)s::bigint is null then application_name like %(names)s
            else (classid::bigint << 32) | objid::bigint = %(key)s end
    limit 1
"""


_HELD = """
    select (classid::bigint << 32) | objid::bigint from pg_catalog.pg_locks
    where locktype = 'advisory' and granted and objsubid = 1
        and database = (select oid from pg_catalog.pg_database where datname = current_database())
"""
# by whether other sessions may have the lock, too
_TRY = {False: "select pg_try_advisory_lock(%s)", True: "select pg_try_advisory_lock_shared(%s)"}
_UNLOCK = {False: "select pg_advisory_unlock(%s)", True: "select pg_advisory_unlock_shared(%s)"}


class LockHolder(NamedTuple):
    """The session that holds a lock; `since` is None if the role has no right to see its start."""

    pid: int
    application_name: str | None
    address: str
    since: str | None

    def __str__(self) -> str:
        name = f", {self.application_name}" if self.application_name else ""
        began = f", from {self.address}, since {self.since} UTC" if self.since else ""
        return f"pid {self.pid} of the server{name}{began}"


def key(*names: str) -> int:
    """Return the key of the lock with these names, as PostgreSQL takes it."""
    return int.from_bytes(hashlib.sha256("\0".join(names).encode()).digest()[:8], signed=True)


def try_lock(connection: Any, lock: int, *, shared: bool = False) -> bool:
    """Take a lock for the session, unless another session holds it. Return whether it was taken.

    Args:
        shared: together with other sessions that take it so.
    """
    with connection.cursor() as cursor:
        cursor.execute(_TRY[shared], [lock])
        return bool(cursor.fetchone()[0])


def unlock(connection: Any, lock: int, *, shared: bool = False) -> None:
    """Release a lock that this session took."""
    with connection.cursor() as cursor:
        cursor.execute(_UNLOCK[shared], [lock])


def holder(connection: Any, lock: int | None = None, *, names: str = "%") -> LockHolder | None:
    """Return who holds a lock of this database.

    Args:
        lock: its key; None for any lock of a session whose application_name is like `names`.
        names: a pattern of LIKE.
    """
    with connection.cursor() as cursor:
        cursor.execute(_HOLDER, {"key": lock, "names": names})
        row = cursor.fetchone()
    return LockHolder(*row) if row else None


def held(connection: Any) -> set[int]:
    """Return the keys of all advisory locks that sessions of this database hold."""
    with connection.cursor() as cursor:
        cursor.execute(_HELD)
        # a connection may return rows as dicts
        return {next(iter(row.values())) if isinstance(row, dict) else row[0] for row in cursor.fetchall()}
