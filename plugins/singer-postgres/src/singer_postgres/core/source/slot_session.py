"""Tells who streams a replication slot. Meanwhile it can't be dropped, moved, or streamed by another session."""

from __future__ import annotations

from typing import TYPE_CHECKING

from singer_postgres.core import session

if TYPE_CHECKING:
    from psycopg2.extensions import connection as Connection  # noqa: N812

# a role without pg_read_all_stats does not see when a session of another role began
_STREAMS = """
    select slot.active_pid, activity.application_name,
        to_char(activity.backend_start at time zone 'UTC', 'YYYY-MM-DD HH24:MI:SS')
    from pg_catalog.pg_replication_slots slot
    left join pg_catalog.pg_stat_activity activity on activity.pid = slot.active_pid
    where slot.slot_name = %s and slot.active_pid is not null
"""


def in_use(connection: Connection, slot: str) -> str | None:
    """Return who streams a slot and what to do about it, as a message; None if nobody does."""
    with connection.cursor() as cursor:
        cursor.execute(_STREAMS, [slot])
        row = cursor.fetchone()
    return row and describe(slot, *row)


def describe(slot: str, pid: int, application: str | None = None, since: str | None = None) -> str:
    """Return the message about a session that streams a slot.

    >>> describe("s", 7, "tidemark tap-postgres r1", "2026-01-31 12:00:00")[:88]
    'A run streams the slot s (tidemark tap-postgres r1, since 2026-01-31 12:00:00 UTC, pid 7'
    """
    is_run = (application or "").startswith(session.TAP)
    known = [application, f"since {since} UTC" if since else None, f"pid {pid} in the source"]
    who = f"{'A run' if is_run else 'Another program'} streams the slot {slot} ({', '.join(filter(None, known))})"
    stop = "stop it (Ctrl-C, or SIGTERM for `tidemark follow`)" if is_run else "stop it"
    return f"{who}: wait until it ends, or {stop}; if it is gone, SELECT pg_terminate_backend({pid}); ends its session."
