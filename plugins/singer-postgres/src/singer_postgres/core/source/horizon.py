"""What the source's server tells of the transactions that are open: how far back a row may yet appear."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from singer_postgres.core import session

if TYPE_CHECKING:
    from psycopg2.extensions import connection as Connection  # noqa: N812

# now() is taken before the scan, and an open transaction that the scan misses began after it. Backends of all types
# count but those that write no row of a table, or replay what others wrote: extensions name types of their own.
_ACTIVITY = """
    with open as materialized (
        select pid, xact_start, usename, application_name, state, query
        from pg_catalog.pg_stat_activity
        where datname = current_database() and pid <> pg_backend_pid()
            and backend_type is distinct from 'autovacuum worker' and backend_type is distinct from 'walsender'
            -- our own read-only sessions
            and not (application_name = %s and backend_xid is null)
    )
    select now(), pg_is_in_recovery(),
        (select count(*) from open where query = '<insufficient privilege>'),
        (select count(*) from open where state = 'disabled'),
        current_user::text, oldest.*
    from (select) one left join (
        select xact_start, pid, usename::text, application_name from open where xact_start is not null
        order by xact_start limit 1
    ) oldest on true
"""
# the instant up to which a standby has what its primary committed; of one that replayed nothing yet, that of its start.
# Not in one statement: a function that the role may not execute is an error though it isn't needed.
_REPLAYED = (
    "select pg_last_xact_replay_timestamp()",
    "select checkpoint_time from pg_catalog.pg_control_checkpoint()",
)
# read after the activity: what is neither there nor here has ended
_PREPARED = """
    select gid, prepared from pg_catalog.pg_prepared_xacts where database = current_database()
    order by prepared limit 1
"""


@dataclass(frozen=True)
class Holder:
    """The session whose transaction has been open for longest."""

    pid: int
    since: datetime
    user: str
    application: str

    def __str__(self) -> str:
        return f"pid {self.pid} ({self.user}, {self.application or 'no application_name'})"


@dataclass(frozen=True)
class Horizon:
    """The transactions that are open in the source's database.

    Attributes:
        now: the server's clock.
        oldest_start: no open transaction that can be seen began before this; on a standby, the instant of what it has.
        holder: the session that holds `oldest_start` back from now, if one does.
        prepared: the oldest prepared transaction, and when it was prepared.
        blind_because: why transactions may be open that can't be seen, and what would mend it.
    """

    now: datetime
    oldest_start: datetime
    holder: Holder | None = None
    prepared: tuple[str, datetime] | None = None
    blind_because: str | None = None

    def settled(self, start: datetime | None, *, longest: timedelta) -> datetime:
        """Return the instant before which no row of a snapshot that is taken after this can be missing. Pure.

        Args:
            start: the last such instant; it holds still.
            longest: how long a transaction that can't be seen may have been open.
        """
        at = self.oldest_start - longest if self.blind_because else self.oldest_start
        if self.prepared:
            # it began some time before it was prepared, and nothing says when
            at = start if start is not None else min(at, self.prepared[1] - longest)
        return at if start is None else max(at, start)


def read(connection: Connection) -> Horizon:
    """Ask the server, on a connection in autocommit. Holds for snapshots that are taken after this."""
    with connection.cursor() as cursor:
        cursor.execute(_ACTIVITY, [session.TAP])
        row = cursor.fetchone()
        assert row
        now, standby, hidden, silent, role, since, pid, user, application = row
        replayed = None
        for statement in _REPLAYED if standby else ():
            cursor.execute(statement)
            (replayed,) = cursor.fetchone() or (None,)
            if replayed is not None:
                break
        cursor.execute(_PREPARED)
        prepared = cursor.fetchone()
    at = min(instant for instant in (now, since, replayed) if instant is not None)
    return Horizon(
        now=now,
        oldest_start=at,
        holder=Holder(pid, since, user, application) if since is not None and at == since else None,
        prepared=prepared,
        blind_because=_blind(standby=standby, hidden=hidden, silent=silent, role=role),
    )


def _blind(*, standby: bool, hidden: int, silent: int, role: str) -> str | None:
    if standby:
        return "a standby does not know which transactions are open on its primary"
    if hidden:
        return f'role {role} can\'t see the sessions of others; mend it with: GRANT pg_read_all_stats TO "{role}";'
    if silent:
        return (
            f"track_activities is off in {silent} sessions, and hides how long their transactions are open; mend it "
            "with: ALTER SYSTEM SET track_activities = on; SELECT pg_reload_conf();"
        )
    return None


def iso(instant: datetime) -> str:
    """Return an instant as states have it: ISO 8601 in UTC, with microseconds."""
    return instant.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
