"""The open transactions of the source's server, and so the instant from which on rows may still appear."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from singer_postgres.core import session

if TYPE_CHECKING:
    from psycopg2.extensions import connection as Connection  # noqa: N812

# now() is taken before pg_stat_activity is read, so an open transaction that isn't listed began after it. All backend
# types count, except those that write no rows or replay what others wrote: extensions define types of their own.
_ACTIVITY = """
    with open as materialized (
        select pid, xact_start, usename, application_name, state, query
        from pg_catalog.pg_stat_activity
        where datname = current_database() and pid <> pg_backend_pid()
            and backend_type is distinct from 'autovacuum worker' and backend_type is distinct from 'walsender'
            -- our own read-only sessions, of whichever run
            and not (pg_catalog.starts_with(application_name, %s) and backend_xid is null)
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
# The instant up to which a standby has the primary's commits; if it has replayed nothing yet, the instant of its start.
# These are two statements, because a function that the role may not execute raises even if its result isn't needed.
_REPLAYED = (
    "select pg_last_xact_replay_timestamp()",
    "select checkpoint_time from pg_catalog.pg_control_checkpoint()",
)
# read after the activity: a transaction that is in neither has ended
_PREPARED = """
    select gid, prepared from pg_catalog.pg_prepared_xacts where database = current_database()
    order by prepared limit 1
"""


@dataclass(frozen=True)
class OldestSession:
    """The session with the oldest open transaction."""

    pid: int
    since: datetime
    user: str
    application: str

    def __str__(self) -> str:
        return f"pid {self.pid} ({self.user}, {self.application or 'no application_name'})"


@dataclass(frozen=True)
class OpenTransactions:
    """The open transactions of the source's database.

    Attributes:
        now: the server's clock.
        oldest_start: no visible open transaction began before this. On a standby: the instant that it has replayed to.
        holder: the session whose open transaction makes `oldest_start` earlier than now; None if there is no such one.
        prepared: the oldest prepared transaction, and the instant when it was prepared.
        blind_because: the reason why open transactions may be invisible, and the remedy; None if all are visible.
    """

    now: datetime
    oldest_start: datetime
    holder: OldestSession | None = None
    prepared: tuple[str, datetime] | None = None
    blind_because: str | None = None
    is_standby: bool = False

    def settled(self, start: datetime | None, *, longest: timedelta) -> datetime:
        """Return the instant before which a snapshot taken after this can miss no row. Pure.

        Args:
            start: the last such instant, which still holds.
            longest: how long an invisible transaction may have been open.
        """
        at = self.oldest_start - longest if self.blind_because else self.oldest_start
        if self.prepared:
            # the transaction began some time before it was prepared, and the server doesn't say when
            at = start if start is not None else min(at, self.prepared[1] - longest)
        return at if start is None else max(at, start)

    def held_back(self, *, longest: timedelta) -> tuple[str, float] | None:
        """Return what keeps a bookmark from reaching now, and for how many seconds it has done so. Pure.

        Args:
            longest: how long an invisible transaction may have been open.
        """
        if self.prepared:
            return "prepared_transaction", (self.now - self.prepared[1]).total_seconds()
        if self.is_standby:
            # it is so by design, and nobody can end it
            return "standby", 0.0
        if self.blind_because:
            return "hidden_transactions", longest.total_seconds()
        if self.holder:
            return "transaction", (self.now - self.holder.since).total_seconds()
        return None


def read(connection: Connection) -> OpenTransactions:
    """Query the server, on a connection in autocommit. The result holds for snapshots taken after this."""
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
    return OpenTransactions(
        now=now,
        oldest_start=at,
        holder=OldestSession(pid, since, user, application) if since is not None and at == since else None,
        prepared=prepared,
        blind_because=_blind(standby=standby, hidden=hidden, silent=silent, role=role),
        is_standby=standby,
    )


def _blind(*, standby: bool, hidden: int, silent: int, role: str) -> str | None:
    if standby:
        return "a standby does not know which transactions are open on its primary"
    if hidden:
        return f"role {role} can't see other users' sessions; fix it with: GRANT pg_read_all_stats TO \"{role}\";"
    if silent:
        return (
            f"track_activities is off in {silent} sessions, and hides how long their transactions are open; fix it "
            "with: ALTER SYSTEM SET track_activities = on; SELECT pg_reload_conf();"
        )
    return None


def iso(instant: datetime) -> str:
    """Format an instant as states store it: ISO 8601 in UTC, with microseconds."""
    return instant.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
