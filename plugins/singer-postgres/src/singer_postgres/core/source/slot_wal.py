"""How much WAL the source keeps for a replication slot, and how much it may keep: `max_slot_wal_mb`."""

from __future__ import annotations

import time
from dataclasses import dataclass
from enum import IntEnum
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

    from psycopg2.extensions import connection as Connection  # noqa: N812

DROP, FAIL = "drop", "fail"

_WAL = """
    select (wal.lsn - slot.restart_lsn)::bigint, (wal.lsn - slot.confirmed_flush_lsn)::bigint, slot.active_pid,
        wal.lsn::text
    from pg_catalog.pg_replication_slots slot, (
        select case when pg_catalog.pg_is_in_recovery() then pg_catalog.pg_last_wal_replay_lsn()
            else pg_catalog.pg_current_wal_flush_lsn() end
    ) wal(lsn)
    where slot.slot_name = %s
"""
_OLDEST_WRITER = """
    select who, seconds from (
        select format('pid %s (%s, %s)', pid, usename, coalesce(nullif(application_name, ''), 'no name')),
            extract(epoch from clock_timestamp() - xact_start)::float8, age(backend_xid)
        from pg_catalog.pg_stat_activity where backend_xid is not null and pid <> pg_catalog.pg_backend_pid()
        union all
        select format('the prepared transaction %s', gid), extract(epoch from clock_timestamp() - prepared)::float8,
            age(transaction)
        from pg_catalog.pg_prepared_xacts
    ) writers(who, seconds, age) order by age desc limit 1
"""
_DROP = "select pg_catalog.pg_drop_replication_slot(%s)"
_POLL_S = 0.1


class Level(IntEnum):
    """How much of the budget is used."""

    within = 0
    half = 1
    over = 2


@dataclass(frozen=True)
class SlotWal:
    """The WAL that the source keeps for a slot.

    Attributes:
        retained_bytes: all of it.
        behind_bytes: what was written since the position that was confirmed last. The rest is older: transactions that
            were open then may have written it, so each start of a run reads it again.
        active_pid: the session that streams the slot; None if none does.
        end: where the source's log ends.
    """

    retained_bytes: int
    behind_bytes: int
    active_pid: int | None = None
    end: str = "0/0"

    @property
    def read_again_bytes(self) -> int:
        """What each start of a run reads again."""
        return max(0, self.retained_bytes - self.behind_bytes)


@dataclass(frozen=True)
class OldestWriter:
    """The transaction that has written for the longest time, or will when it commits."""

    who: str
    seconds: float


@dataclass(frozen=True)
class SlotBudget:
    """How much WAL the source may keep for a slot.

    Attributes:
        mb: the limit in MiB; None for none.
        drops: a slot that is over it is dropped.
    """

    mb: float | None = None
    drops: bool = False

    @classmethod
    def of(cls, config: Mapping[str, Any]) -> SlotBudget:
        """Return the budget of a tap's settings."""
        mb = config.get("max_slot_wal_mb")
        return cls(None if mb is None else float(mb), config.get("max_slot_wal_action") == DROP)

    def level(self, wal: SlotWal | None) -> Level:
        """Return how much of the budget is used; nothing of it if there is no such slot.

        >>> [SlotBudget(10).level(SlotWal(mb * 2**20, 0)).name for mb in (4, 5, 10, 11)]
        ['within', 'half', 'half', 'over']
        >>> SlotBudget().level(SlotWal(2**60, 0)).name
        'within'
        """
        if self.mb is None or wal is None:
            return Level.within
        used = wal.retained_bytes / (self.mb * 2**20)
        return Level.over if used > 1 else Level.half if used >= 0.5 else Level.within  # noqa: PLR2004 - half

    def describe(self, slot: str, wal: SlotWal) -> str:
        """Return what the source keeps and what it may keep, as the beginning of a sentence."""
        kept, most = megabytes(wal.retained_bytes), f"{self.mb:,.0f} MB"
        return f"the source keeps {kept} of WAL for the slot {slot}, and max_slot_wal_mb allows {most}"


def measure(connection: Connection, slot: str) -> SlotWal | None:
    """Return the WAL that is kept for a slot; None if there is no such slot, or the server has given it up."""
    with connection.cursor() as cursor:
        cursor.execute(_WAL, [slot])
        row = cursor.fetchone()
    return None if row is None or row[0] is None else SlotWal(row[0], row[1] or 0, row[2], row[3])


def oldest_writer(connection: Connection) -> OldestWriter | None:
    """Return the oldest transaction that has written something, as far as this role may see."""
    with connection.cursor() as cursor:
        cursor.execute(_OLDEST_WRITER)
        row = cursor.fetchone()
    return OldestWriter(*row) if row else None


def drop(connection: Connection, slot: str, *, patience_s: float = 10.0) -> bool:
    """Drop a slot once no session streams it; return whether it could be dropped.

    Args:
        patience_s: how long to wait for the end of a session.
    """
    deadline = time.monotonic() + patience_s
    while (found := measure(connection, slot)) is not None:
        if found.active_pid is None:
            with connection.cursor() as cursor:
                cursor.execute(_DROP, [slot])
            return True
        if time.monotonic() > deadline:
            return False
        time.sleep(_POLL_S)
    return False


def megabytes(count: int) -> str:
    """Return a number of bytes in MiB, as PostgreSQL's settings count megabytes.

    >>> megabytes(5 * 2**30)
    '5,120 MB'
    """
    return f"{count / 2**20:,.0f} MB"
