"""`tidemark slots`: the replication slots and publications of LOG_BASED streams, and how much WAL they hold."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import psycopg
from psycopg import sql

from singer_postgres.core import errors
from singer_postgres.core.errors import one_line
from singer_postgres.core.log_origin import LogOrigin, parse_history
from singer_postgres.core.source import log_tables, slot_session, slot_wal
from singer_postgres.core.source.identity import identity
from singer_postgres.core.warehouse import slot_table, state_table
from tidemark.errors import BusyError, TidemarkError, UsageError
from tidemark.inspect import publications
from tidemark.inspect.check import relations, streams
from tidemark.project import connections, database_settings, sources

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from tidemark.project.database_settings import DatabaseSettings
    from tidemark.project.directory import Project
    from tidemark.project.sources import SourceDefinition

    Connection = psycopg.Connection[Any]

_SLOTS = """
    select slot_name::text, plugin::text, active_pid, wal_status, safe_wal_size, confirmed_flush_lsn::text
    from pg_catalog.pg_replication_slots
    where database = current_database() and (slot_name = %s or starts_with(slot_name, 'tidemark_'))
    order by slot_name
"""
_FOLLOWED = """
    select state.slot, array_agg(state.stream order by state.stream) from {} state
    where state.source = {} and state.slot is not null group by state.slot
"""
_RIGHTS = """
    select current_setting('wal_level'), rolreplication or rolsuper, current_user::text
    from pg_catalog.pg_roles where rolname = %s
"""
_FAILOVER_VERSION = 170000


@dataclass(frozen=True)
class SlotFacts:
    """One slot of a source's database.

    Attributes:
        is_ours: the source's tap reads it; otherwise a project that may be gone has left it behind.
        retained_bytes: the WAL that the source keeps for it.
        behind_bytes: what was written since the position that was confirmed last.
        read_again_bytes: what each start of a run reads again, because of transactions that were open then.
        budget_bytes: how much may be kept (max_slot_wal_mb); None for no limit.
        is_over: more than that is kept.
        safe_bytes: how much more WAL may be written before the server gives the slot up; None without a limit.
        warehouse: the position up to which the warehouse has its changes; None if it has none.
        streams: the streams that follow it in the warehouse.
    """

    source: str
    slot: str
    plugin: str
    is_ours: bool
    active_pid: int | None
    wal_status: str | None
    retained_bytes: int | None
    behind_bytes: int | None
    read_again_bytes: int | None
    budget_bytes: int | None
    is_over: bool
    safe_bytes: int | None
    confirmed: str | None
    warehouse: str | None
    streams: tuple[str, ...]


def facts(project: Project, source: SourceDefinition) -> list[SlotFacts]:
    """Return the slots of a source's database, apart from those that other sources of the project read.

    Raises:
        TidemarkError: the source can't be reached.
    """
    configuration = streams.configuration(project, source)
    name, budget = configuration.slot, configuration.slot_budget
    with connections.connect(database_settings.source(project, source)) as connection:
        rows = connection.execute(_SLOTS, [name]).fetchall()
        kept = {row[0]: slot_wal.measure(connection, row[0]) for row in rows}
        here = in_warehouse(project, source, identity(connection))
    others = _of_others(project, source) if len(rows) > 1 else frozenset()
    found = []
    for slot, plugin, pid, status, safe, confirmed in rows:
        if slot in others:
            continue
        wal, is_ours = kept[slot], slot == name
        position, followed = here.get(slot, (None, ()))
        found.append(
            SlotFacts(
                *(source.name, slot, plugin, is_ours, pid, status),
                retained_bytes=wal.retained_bytes if wal else None,
                behind_bytes=wal.behind_bytes if wal else None,
                read_again_bytes=wal.read_again_bytes if wal else None,
                budget_bytes=None if budget.mb is None or not is_ours else round(budget.mb * 2**20),
                is_over=is_ours and budget.level(wal) is slot_wal.Level.over,
                safe_bytes=safe,
                confirmed=confirmed,
                warehouse=position,
                streams=followed,
            )
        )
    return found


def _of_others(project: Project, source: SourceDefinition) -> frozenset[str]:
    """Return the slots of the project's other sources, which may read the same database."""
    # that of a retired one is left behind
    others = [each for each in sources.active(project) if each.name != source.name]
    return frozenset(streams.configuration(project, each).slot for each in others)


def left_by(project: Project, source: SourceDefinition) -> SlotFacts | None:
    """Return the slot of a source that was given up; None if it has none, or can't be reached."""
    with suppress(TidemarkError):
        return next((fact for fact in facts(project, source) if fact.is_ours), None)
    return None


def in_warehouse(project: Project, source: SourceDefinition, source_id: str) -> dict[str, tuple[str, tuple[str, ...]]]:
    """Return up to where the warehouse has each slot's changes, and the streams that follow it, by slot.

    Without a warehouse that answers there are none: the slots are what matters here.
    """
    try:
        with connections.connect(database_settings.warehouse(project, source)) as connection:
            names = [sql.Identifier(source.raw_schema, each.TABLE.name) for each in (slot_table, state_table)]
            for name in names:
                there = connection.execute("select to_regclass(%s)", [name.as_string(connection)]).fetchone()
                if not there or there[0] is None:
                    return {}
            query = sql.SQL("select slot, position::text from {} where source = {}")
            positions = connection.execute(query.format(names[0], sql.Literal(source_id))).fetchall()
            followed = dict(connection.execute(sql.SQL(_FOLLOWED).format(names[1], sql.Literal(source_id))).fetchall())
            return {slot: (position, tuple(followed.get(slot, ()))) for slot, position in positions}
    except TidemarkError:
        return {}


def statements(project: Project, source: SourceDefinition) -> Iterator[tuple[str, str]]:
    """Yield what is missing for a source's LOG_BASED streams: an SQL statement, and what it does.

    Raises:
        UsageError: no stream is LOG_BASED; or the log can't identify rows of a table, or apply a stream's condition.
        TidemarkError: the source can't be reached.
    """
    configuration = streams.configuration(project, source)
    slot, publication = configuration.slot, configuration.publication
    side = database_settings.source(project, source)
    with connections.connect(side) as connection:
        with connection.transaction():
            found, _ = relations.read(connection, configuration.schemas)
        selected = streams.selected(configuration, {each.stream: each for each in found})
        wanted = publications.wanted(connection, configuration, selected)
        if not wanted:
            raise UsageError(
                f"No stream of source {source.name} is LOG_BASED: set that replication-method under `metadata` in "
                f"{source.path}."
            )
        rights = connection.execute(_RIGHTS, [side.user]).fetchone()
        version = connection.info.server_version
        publishing = publications.statements(connection, publication, wanted)
        has_slot = connection.execute(
            "select from pg_catalog.pg_replication_slots where slot_name = %s", [slot]
        ).fetchone()
    level, may_replicate, _ = rights or ("", False, "")
    if level != "logical":
        yield "ALTER SYSTEM SET wal_level = logical;", f"wal_level is {level}; restart the server after this"
    if not may_replicate:
        yield f"ALTER ROLE {_quoted(side.user or '')} REPLICATION;", "the tap's role may stream the log"
    yield from publishing
    if has_slot is None:
        literal = "'" + slot.replace("'", "''") + "'"
        # standbys that synchronize slots then have it, so that it survives a promotion
        also = ", failover => true" if version >= _FAILOVER_VERSION else ""
        yield (
            f"SELECT pg_create_logical_replication_slot({literal}, 'pgoutput'{also});",
            "from here on the source keeps its WAL until it is read",
        )


def create(project: Project, source: SourceDefinition) -> Iterator[str]:
    """Make what is missing, and yield each statement that was run.

    Raises:
        BusyError: another session is making the slot.
        TidemarkError: this role may not; the message has the statements for an administrator.
    """
    wanted = list(statements(project, source))
    side = database_settings.admin(project, database_settings.source(project, source))
    with connections.connect(side) as connection:
        _refuse_unfinished(connection, streams.configuration(project, source).slot)
        _try_publishing(connection, [statement for statement, _ in wanted])
        for number, (statement, what) in enumerate(wanted):
            if "pg_create_logical_replication_slot" in statement and (oldest := slot_wal.oldest_writer(connection)):
                age = f"the oldest, {oldest.seconds:.0f} s old, is of {oldest.who}"
                yield f"-- Making the slot waits for the end of all transactions that have written something; {age}."
            try:
                # a slot can't be made in a transaction that has written
                connection.execute(statement.encode())
            except psycopg.Error as error:
                rest = " ".join(each for each, _ in wanted[number:])
                raise TidemarkError(
                    f"{one_line(error).rstrip('.')}. Have an administrator run in {side}: {rest}"
                ) from error
            yield f"{statement}  -- {what}"
            if "wal_level" in statement:
                restart = "`tidemark down` and `tidemark up`" if side.embedded else "restart it"
                raise TidemarkError(f"wal_level needs a restart of the server: {restart}, then run this again.")


def create_again(project: Project, source: SourceDefinition) -> Iterator[str]:
    """Make what is missing, and the slot again if the source has removed WAL that it needed; yield each statement.

    Raises:
        TidemarkError: this role may not; the message has the statements for an administrator.
    """
    name = streams.configuration(project, source).slot
    lost = next((fact for fact in facts(project, source) if fact.slot == name and fact.wal_status == "lost"), None)
    if lost:
        side = database_settings.admin(project, database_settings.source(project, source))
        with connections.connect(side) as connection:
            _drop(connection, name)
        yield f"SELECT pg_drop_replication_slot('{name}');  -- it was lost"
    yield from create(project, source)


def origin(side: DatabaseSettings) -> LogOrigin:
    """Return which server's log a database has.

    Raises:
        TidemarkError: this role may not stream the log.
    """
    try:
        with psycopg.connect(**connections.parameters(side), replication="database", autocommit=True) as connection:
            row = connection.execute("IDENTIFY_SYSTEM").fetchone()
            assert row
            system, timeline = str(row[0]), int(row[1])
            history = connection.execute(f"TIMELINE_HISTORY {timeline}".encode()).fetchone() if timeline > 1 else None
    except psycopg.Error as error:
        raise TidemarkError(f"The log can't be streamed from {side}: {one_line(error).rstrip('.')}.") from error
    text = history[1] if history else ""
    return LogOrigin(system, timeline, parse_history(text.decode() if isinstance(text, bytes) else text))


def _refuse_unfinished(connection: Connection, slot: str) -> None:
    """Refuse a slot that another session is making.

    Raises:
        BusyError: one is.
    """
    try:
        log_tables.slot(connection, slot)
    except errors.BusyError as error:
        raise BusyError(str(error)) from error
    except errors.SlotMissingError:
        # it is made, or was lost
        return


def _try_publishing(connection: Connection, statements: Iterable[str]) -> None:
    """Find out whether the server takes all conditions, before anything is changed.

    Raises:
        UsageError: it does not.
    """
    for statement in statements:
        if "PUBLICATION" not in statement:
            continue
        try:
            with connection.transaction(force_rollback=True):
                connection.execute(statement.encode())
        except (psycopg.errors.FeatureNotSupported, psycopg.errors.InvalidObjectDefinition) as error:
            raise UsageError(
                f"A condition (where) is none that the log can apply: {one_line(error)} Correct it, or make the stream "
                f"INCREMENTAL. Tried was: {statement}"
            ) from error
        except psycopg.Error:
            # what is run next says so, with the statements for an administrator
            return


def drop(project: Project, source: SourceDefinition, slot: str) -> str | None:
    """Drop a slot, and the publication of its name if there is one and this role may. Otherwise return its statement.

    Raises:
        BusyError: a session streams it.
        TidemarkError: there is no such slot.
    """
    side = database_settings.admin(project, database_settings.source(project, source))
    with connections.connect(side) as connection:
        try:
            _drop(connection, slot)
        except psycopg.Error as error:
            raise TidemarkError(f"{one_line(error).rstrip('.')}.") from error
        try:
            connection.execute(sql.SQL("drop publication if exists {}").format(sql.Identifier(slot)))
        except psycopg.Error:
            # a role that only reads may drop a slot; a publication costs nothing
            return f"DROP PUBLICATION {_quoted(slot)};"
    return None


def _drop(connection: Connection, slot: str) -> None:
    try:
        connection.execute("select pg_drop_replication_slot(%s)", [slot])
    except psycopg.errors.ObjectInUse as error:
        raise busy(connection, slot, error) from error


def busy(connection: Connection, slot: str, error: psycopg.Error) -> BusyError:
    """Return who streams a slot, because of which the server refused to drop or to move it."""
    # that session may be gone by now
    return BusyError(slot_session.in_use(connection, slot) or f"{one_line(error).rstrip('.')}: run this again.")


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
