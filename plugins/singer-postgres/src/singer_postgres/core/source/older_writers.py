"""Waits for transactions that were open when a table was published: the log may lack rows that they wrote."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from singer_postgres.core.errors import LockBusyError

if TYPE_CHECKING:
    from collections.abc import Callable

    from psycopg2.extensions import connection as Connection  # noqa: N812

_POLL_S = 0.2
_TELL_EVERY_S = 30.0
# the other streams wait with it
_WAIT_S = 300.0
# whether all transactions that were open then have ended; and those that we may see
_OLDER = """
    with oldest(xid) as (select pg_catalog.pg_snapshot_xmin(pg_catalog.pg_current_snapshot())::text::xid)
    select age(%(xid)s::text::xid) > age(oldest.xid), (
        select string_agg(who, ', ') from (
            select format('pid %%s (%%s, %%s)', pid, usename, coalesce(nullif(application_name, ''), 'no name'))
            from pg_catalog.pg_stat_activity where age(backend_xid) >= age(%(xid)s::text::xid)
            union all
            select format('the prepared transaction %%s', gid)
            from pg_catalog.pg_prepared_xacts where age(transaction) >= age(%(xid)s::text::xid)
        ) writers(who)
    )
    from oldest
"""


def wait(connection: Connection, xid: str, *, stream: str, warn: Callable[[str], None]) -> None:
    """Wait until no transaction is open that is as old as the one that published a stream's table.

    Args:
        xid: that transaction.
        warn: takes a line now and then that names who is waited for.

    Raises:
        LockBusyError: they stay open. The other streams go on, and the next run waits again.
    """
    deadline, told_at = time.monotonic() + _WAIT_S, 0.0
    while (writers := find(connection, xid)) is not None:
        if time.monotonic() - told_at > _TELL_EVERY_S:
            told_at = time.monotonic()
            warn(f"The first load of {stream} waits for transactions that began before it was published: {writers}")
        if time.monotonic() > deadline:
            waited = f"The first load of {stream} waited {_WAIT_S:.0f} s"
            msg = f"{waited} for {writers}: end them, or run this again."
            raise LockBusyError(msg)
        time.sleep(_POLL_S)


def find(connection: Connection, xid: str) -> str | None:
    """Return who still has a transaction that was open when `xid` was; None if nobody has."""
    with connection.cursor() as cursor:
        cursor.execute(_OLDER, {"xid": xid})
        row = cursor.fetchone()
    assert row
    is_over, writers = row
    return None if is_over else writers or "sessions that this role may not see"
