"""Waits for transactions that had written to a table before it is read and followed: the log may lack their rows.

The log lacks what a transaction wrote before the table was published. It also lacks a transaction whose commit lies
before the slot's position, and that no snapshot sees yet, because it waits for a synchronous standby. Both still hold
their lock on the table, which every role can see in `pg_locks`. Writers that come later need no wait.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from singer_postgres.core import prepared_transactions
from singer_postgres.core.errors import LockBusyError

if TYPE_CHECKING:
    from collections.abc import Callable

    from psycopg2.extensions import connection as Connection  # noqa: N812

_POLL_S = 0.2
_TELL_EVERY_S = 30.0
# the other streams wait with it
_WAIT_S = 300.0
_WRITERS = f"""
    select l.virtualtransaction, coalesce(
        (
            select format('pid %%s (%%s, %%s)', pid, usename, coalesce(nullif(application_name, ''), 'no name'))
            from pg_catalog.pg_stat_activity a where a.pid = l.pid
        ),
        {prepared_transactions.NAME_OF_HOLDER},
        'an unknown session'
    )
    from pg_catalog.pg_locks l
    where l.locktype = 'relation' and l.granted
        and l.mode in ('RowExclusiveLock', 'ShareRowExclusiveLock', 'ExclusiveLock', 'AccessExclusiveLock')
        and l.database = (select oid from pg_catalog.pg_database where datname = pg_catalog.current_database())
        and (
            l.relation = %(oid)s::bigint::oid
            or l.relation in (select relid from pg_catalog.pg_partition_tree(%(oid)s::bigint::oid))
        )
"""  # noqa: S608 - of constants


def wait(connection: Connection, table_oid: int, *, stream: str, warn: Callable[[str], None]) -> None:
    """Wait until all transactions have ended that have written to a stream's table by now.

    Args:
        connection: in autocommit.
        warn: takes a line now and then that names who is waited for.

    Raises:
        LockBusyError: they stay open. The other streams go on, and the next run waits again.
    """
    waited_for = _find(connection, table_oid)
    deadline, told_at = time.monotonic() + _WAIT_S, 0.0
    while waited_for:
        writers = ", ".join(sorted(set(waited_for.values())))
        if time.monotonic() - told_at > _TELL_EVERY_S:
            told_at = time.monotonic()
            warn(f"{stream} waits for transactions that have written to its table: {writers}")
        if time.monotonic() > deadline:
            waited = f"{stream} waited {_WAIT_S:.0f} s"
            msg = f"{waited} for transactions that have written to its table: {writers}. End them, or run this again."
            raise LockBusyError(msg)
        time.sleep(_POLL_S)
        waited_for = {id_: who for id_, who in _find(connection, table_oid).items() if id_ in waited_for}


def _find(connection: Connection, table_oid: int) -> dict[str, str]:
    """Return the writers of a table: their virtual transaction ids, and who they are."""
    with connection.cursor() as cursor:
        cursor.execute(_WRITERS, {"oid": table_oid})
        return dict(cursor.fetchall())
