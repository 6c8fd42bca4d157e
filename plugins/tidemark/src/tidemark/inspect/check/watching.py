"""Checks whether the tap can see other sessions' open transactions, which its watermark depends on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tidemark.inspect.check.finding import Finding, Level, statement

if TYPE_CHECKING:
    from collections.abc import Iterator

    import psycopg

_INSTEAD = "the tap uses a longer lookback instead"


@dataclass(frozen=True)
class ActivityAccess:
    """The role's access to the server's activity.

    Attributes:
        off_for: roles and databases (None for all) with track_activities off.
        feedback: a standby's hot_standby_feedback.
    """

    role: str
    sees_others: bool
    tracked: bool
    off_for: tuple[tuple[str | None, str | None], ...]
    standby: bool
    feedback: bool


_QUERY = """
    select current_user::text, pg_catalog.pg_has_role('pg_read_all_stats', 'usage'),
        current_setting('track_activities')::boolean, pg_catalog.pg_is_in_recovery(),
        current_setting('hot_standby_feedback')::boolean
"""
_OFF_FOR = """
    select r.rolname::text, d.datname::text
    from pg_catalog.pg_db_role_setting s
    cross join lateral unnest(s.setconfig) setting
    left join pg_catalog.pg_roles r on r.oid = s.setrole
    left join pg_catalog.pg_database d on d.oid = s.setdatabase
    where (d.datname is null or d.datname = current_database())
        and setting like 'track\\_activities=%' and not split_part(setting, '=', 2)::boolean
    order by 1, 2
"""


def read(connection: psycopg.Connection[Any]) -> ActivityAccess:
    """Query the source."""
    row = connection.execute(_QUERY).fetchone()
    assert row
    role, sees_others, tracked, standby, feedback = row
    off_for = tuple((role, database) for role, database in connection.execute(_OFF_FOR))
    return ActivityAccess(role, sees_others, tracked, off_for, standby, feedback)


def findings(watching: ActivityAccess, *, incremental: bool) -> Iterator[Finding]:
    """Yield what keeps the tap from seeing open transactions.

    Args:
        incremental: a stream is INCREMENTAL. Only those depend on it.
    """
    if watching.standby:
        yield _standby(watching, incremental=incremental)
    if not incremental:
        return
    if not watching.sees_others:
        grant = statement("GRANT pg_read_all_stats TO {role}", role=watching.role)
        what = f"{watching.role} can't see when other sessions' transactions began: {_INSTEAD}"
        yield Finding("source", Level.warning, what, (grant,))
    if not watching.tracked and not any(_means(watching, role) for role, _ in watching.off_for):
        fix = ("ALTER SYSTEM SET track_activities = on", "SELECT pg_reload_conf()")
        what = f"track_activities is off, so the server does not say when transactions began: {_INSTEAD}"
        yield Finding("source", Level.warning, what, fix)
    for role, database in watching.off_for:
        what = f"track_activities is off for {role or 'all roles'}, which hides their transactions: {_INSTEAD}"
        yield Finding("source", Level.warning, what, (_reset(role, database),))


def _standby(watching: ActivityAccess, *, incremental: bool) -> Finding:
    what = "it is a standby: run the fixes of its tables on its primary"
    if incremental:
        what += f"; it can't see its primary's open transactions, so {_INSTEAD}"
    if watching.feedback:
        return Finding("source", Level.warning if incremental else Level.note, what)
    fix = ("ALTER SYSTEM SET hot_standby_feedback = on", "SELECT pg_reload_conf()")
    return Finding("source", Level.warning, f"{what}; without hot_standby_feedback it may end long reads", fix)


def _means(watching: ActivityAccess, role: str | None) -> bool:
    return role is None or role == watching.role


def _reset(role: str | None, database: str | None) -> str:
    if role and database:
        template = "ALTER ROLE {role} IN DATABASE {database} RESET track_activities"
        return statement(template, role=role, database=database)
    if role:
        return statement("ALTER ROLE {role} RESET track_activities", role=role)
    if database:
        return statement("ALTER DATABASE {database} RESET track_activities", database=database)
    return "ALTER ROLE ALL RESET track_activities"
