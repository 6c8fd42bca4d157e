"""Finds what keeps LOG_BASED streams from following the source's log, or lets the log fill the source's disk."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from singer_postgres.core.errors import LogUnfitError, SlotMissingError
from singer_postgres.core.source import log_tables
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
_OTHERS = """
    select slot_name::text, pg_size_pretty(pg_wal_lsn_diff(pg_current_wal_lsn(), restart_lsn))
    from pg_catalog.pg_replication_slots
    where database = current_database() and starts_with(slot_name, 'tidemark_') and slot_name <> %s
        and active_pid is null and not pg_is_in_recovery()
"""
_CREATE = "`tidemark slots create` makes it"


def findings(connection: Connection, configuration: Configuration, streams: Iterable[Stream]) -> Iterator[Finding]:
    """Yield findings about the server, the slot, and each LOG_BASED stream."""
    followed = [stream for stream in streams if stream.method == "LOG_BASED"]
    slot = configuration.slot
    others = connection.execute(_OTHERS, [slot]).fetchall()
    for name, size in others:
        what = f"the replication slot {name} keeps {size} of WAL and nobody reads it: `tidemark slots drop {name}`"
        yield Finding("source", Level.warning, f"{what}, if its project is gone")
    if not followed:
        return
    yield from _server(connection)
    try:
        log_tables.slot(connection, slot)
    except SlotMissingError as error:
        yield Finding("source", Level.error, f"{str(error).rstrip('.')}; {_CREATE}")
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


def _stream(connection: Connection, configuration: Configuration, stream: Stream) -> Iterator[Finding]:
    described = stream.relation.described
    if described is None:
        return
    if configuration.where.get(stream.name):
        what = "has a condition (where), which the log does not apply: leave it out, or make it INCREMENTAL"
        yield Finding("source", Level.error, what, stream=stream.name)
    try:
        log_tables.published_by(
            connection,
            configuration.publication,
            described,
            stream.key or described.key,
        )
    except LogUnfitError as error:
        yield Finding("source", Level.error, str(error).rstrip("."), stream=stream.name)
    except SlotMissingError as error:
        yield Finding("source", Level.error, f"{str(error).rstrip('.')}; {_CREATE}", stream=stream.name)
