"""`tidemark slots advance`: gives up changes that nobody has read, so that the source may forget its WAL.

The warehouse keeps its own position. A run compares both, and refuses to go on until the streams are repaired.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import psycopg

from singer_postgres.core.errors import one_line
from singer_postgres.core.lsn import lsn_of
from singer_postgres.core.source import slot_session
from singer_postgres.core.source.identity import identity
from tidemark.errors import BusyError, TidemarkError, UsageError
from tidemark.inspect import slots
from tidemark.project import connections, database_settings

if TYPE_CHECKING:
    from tidemark.project.directory import Project
    from tidemark.project.sources import SourceDefinition

_SLOT = """
    select confirmed_flush_lsn::text, pg_current_wal_flush_lsn()::text
    from pg_catalog.pg_replication_slots where slot_name = %s and database = current_database()
"""


@dataclass(frozen=True)
class Advance:
    """What advancing a slot would do.

    Attributes:
        start: where the slot is.
        to: where it is to be.
        lost_bytes: the WAL whose changes the warehouse does not have and will not get from the log.
        streams: those that must be repaired then.
    """

    slot: str
    start: str
    to: str
    lost_bytes: int
    streams: tuple[str, ...]


def plan(project: Project, source: SourceDefinition, slot: str, to: str | None) -> Advance:
    """Return what advancing a slot would do.

    Args:
        to: the position; None for the end of the log.

    Raises:
        UsageError: the position is not one that the slot can be advanced to.
        BusyError: a run streams the slot.
    """
    with connections.connect(database_settings.source(project, source)) as connection:
        row = connection.execute(_SLOT, [slot]).fetchone()
        if row is None:
            raise UsageError(f"Source {source.name} has no slot {slot}: `tidemark slots list` shows those it has.")
        start, end = row
        here = slots.in_warehouse(project, source, identity(connection))
        if (in_use := slot_session.in_use(connection, slot)) is not None:
            raise BusyError(in_use)
    wanted = end if to is None else to
    try:
        at = lsn_of(wanted)
    except ValueError:
        raise UsageError(f"{to} is no position of a log: give one such as {end}, or none for now.") from None
    if not lsn_of(start) <= at <= lsn_of(end):
        raise UsageError(f"{wanted} is not between {start}, where the slot is, and {end}, where the log ends.")
    position, followed = here.get(slot, (None, ()))
    lost = at - lsn_of(position) if position is not None and followed else 0
    return Advance(slot, start, wanted, max(0, lost), followed if lost > 0 else ())


def advance(project: Project, source: SourceDefinition, planned: Advance) -> str:
    """Advance the slot, and return the position that it has then.

    Raises:
        BusyError: a run streams the slot.
        TidemarkError: the server refuses that.
    """
    with connections.connect(database_settings.source(project, source)) as connection:
        try:
            row = connection.execute(
                "select end_lsn::text from pg_catalog.pg_replication_slot_advance(%s, %s::pg_lsn)",
                [planned.slot, planned.to],
            ).fetchone()
        except psycopg.errors.ObjectInUse as error:
            raise slots.busy(connection, planned.slot, error) from error
        except psycopg.Error as error:
            raise TidemarkError(f"{one_line(error).rstrip('.')}.") from error
    assert row
    return str(row[0])
