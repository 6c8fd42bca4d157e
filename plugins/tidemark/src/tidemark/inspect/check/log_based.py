"""Finds what keeps LOG_BASED streams from following the source's log, or lets the log fill the source's disk."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from singer_postgres.core.errors import BusyError, LogUnfitError, SlotMissingError
from singer_postgres.core.source import log_tables, slot_wal
from tidemark.inspect.check.finding import Finding, Level, statement

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    import psycopg

    from tidemark.inspect.check.streams import Configuration, Stream

    Connection = psycopg.Connection[Any]

_SERVER = """
    select current_setting('wal_level'), rolreplication or rolsuper, current_user::text,
        current_setting('max_slot_wal_keep_size'), current_setting('idle_replication_slot_timeout', true)
    from pg_catalog.pg_roles where rolname = current_user
"""
_IDLE = """
    select slot_name::text, pg_size_pretty(pg_wal_lsn_diff(pg_current_wal_lsn(), restart_lsn)), slot_name = %s
    from pg_catalog.pg_replication_slots
    where database = current_database() and (starts_with(slot_name, 'tidemark_') or slot_name = %s)
        and active_pid is null and not pg_is_in_recovery()
"""
# the timeout in milliseconds
_LIMITS = """
    select current_setting('max_replication_slots')::int, (select count(*) from pg_catalog.pg_replication_slots),
        current_setting('max_wal_senders')::int, (select count(*) from pg_catalog.pg_stat_replication),
        (select setting::int from pg_catalog.pg_settings where name = 'wal_sender_timeout'),
        exists (select from pg_catalog.pg_replication_slots where slot_name = %s)
"""
# the tap tells the server every five seconds that it is there
_SHORT_TIMEOUT_MS = 10_000
_OLD_S = 600
_MUCH_BYTES = 2**26
_CREATE = "`tidemark slots create` makes it"


def findings(connection: Connection, configuration: Configuration, streams: Iterable[Stream]) -> Iterator[Finding]:
    """Yield findings about the server, the slot, and each LOG_BASED stream."""
    followed = [stream for stream in streams if stream.method == "LOG_BASED"]
    slot = configuration.slot
    for name, size, is_ours in connection.execute(_IDLE, [slot, slot]).fetchall():
        what = f"the replication slot {name} keeps {size} of WAL and nobody reads it: `tidemark slots drop {name}`"
        if not is_ours:
            yield Finding("source", Level.warning, f"{what}, if its project is gone")
        elif not followed:
            yield Finding("source", Level.warning, f"{what}, because no stream is LOG_BASED")
    if not followed:
        return
    yield from _server(connection)
    yield from _limits(connection, slot)
    yield from _kept(connection, configuration)
    try:
        log_tables.slot(connection, slot)
    except SlotMissingError as error:
        yield Finding("source", Level.error, f"{str(error).rstrip('.')}; {_CREATE}")
    except BusyError as error:
        yield Finding("source", Level.error, str(error).rstrip("."))
    for stream in followed:
        yield from _stream(connection, configuration, stream)


def _server(connection: Connection) -> Iterator[Finding]:
    row = connection.execute(_SERVER).fetchone()
    level, may_replicate, role, most, idle = row or ("", False, "", "", None)
    if level != "logical":
        what = f"LOG_BASED streams need wal_level logical, and it is {level}; restart the server after this"
        yield Finding("source", Level.error, what, ("ALTER SYSTEM SET wal_level = logical",))
    if not may_replicate:
        what = f"the role {role} may not stream the log, which LOG_BASED streams need"
        yield Finding("source", Level.error, what, (statement("ALTER ROLE {role} REPLICATION", role=role),))
    if most == "-1":
        what = "max_slot_wal_keep_size has no limit: a slot that nobody reads for long would fill the source's disk"
        yield Finding("source", Level.warning, what, ("ALTER SYSTEM SET max_slot_wal_keep_size = '20GB'",))
    if idle not in {None, "0"}:
        what = f"idle_replication_slot_timeout is {idle}: a slot that is read less often than that is lost"
        yield Finding("source", Level.warning, what)


def _limits(connection: Connection, slot: str) -> Iterator[Finding]:
    """Yield a finding for each limit of the server that leaves no room for a slot or its session."""
    row = connection.execute(_LIMITS, [slot]).fetchone()
    assert row
    most_slots, slots, most_senders, senders, timeout_ms, has_slot = row
    if not has_slot and slots >= most_slots:
        what = f"all {most_slots} replication slots (max_replication_slots) are in use, and {slot} needs one"
        fix = f"ALTER SYSTEM SET max_replication_slots = {most_slots + 5}"
        yield Finding("source", Level.error, f"{what}; restart the server after this", (fix,))
    if senders >= most_senders:
        what = f"all {most_senders} sessions that may stream the log (max_wal_senders) are in use"
        fix = f"ALTER SYSTEM SET max_wal_senders = {most_senders + 5}"
        yield Finding("source", Level.warning, f"{what}; restart the server after this", (fix,))
    fix = "ALTER SYSTEM SET wal_sender_timeout = '1min'"
    if timeout_ms == 0:
        what = "wal_sender_timeout is 0: a session whose machine is gone keeps the slot, and no run can read it"
        yield Finding("source", Level.warning, what, (fix,))
    elif timeout_ms < _SHORT_TIMEOUT_MS:
        what = f"wal_sender_timeout is {timeout_ms} ms: the server may end a session that is only slow"
        yield Finding("source", Level.warning, what, (fix,))


def _kept(connection: Connection, configuration: Configuration) -> Iterator[Finding]:
    """Yield what the source keeps for the slot, if it is much, and the transaction because of which it does."""
    slot, budget = configuration.slot, configuration.slot_budget
    if (wal := slot_wal.measure(connection, slot)) is None:
        return
    used = budget.level(wal)
    if used is not slot_wal.Level.within:
        level = Level.error if used is slot_wal.Level.over else Level.warning
        yield Finding("source", level, budget.describe(slot, wal))
    oldest = slot_wal.oldest_writer(connection)
    if wal.read_again_bytes >= _MUCH_BYTES or (oldest and oldest.seconds >= _OLD_S):
        by = f"; the oldest open transaction is of {oldest.who}, {oldest.seconds:.0f} s old" if oldest else ""
        what = f"each start of a run reads {slot_wal.megabytes(wal.read_again_bytes)} of the log again"
        yield Finding("source", Level.warning, f"{what}, which transactions that were open then may have written{by}")


def _stream(connection: Connection, configuration: Configuration, stream: Stream) -> Iterator[Finding]:
    described = stream.relation.described
    if described is None:
        return
    try:
        log_tables.published_by(
            connection,
            configuration.publication,
            described,
            stream.key or described.key,
            columns=[column.name for column in stream.columns],
            where=configuration.where.get(stream.name, ()),
        )
    except LogUnfitError as error:
        yield Finding("source", Level.error, str(error).rstrip("."), stream=stream.name)
    except SlotMissingError as error:
        yield Finding("source", Level.error, f"{str(error).rstrip('.')}; {_CREATE}", stream=stream.name)
