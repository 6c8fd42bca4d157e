"""Gives a source or a stream up: no run reads it, it is marked, and its tables are dropped if the user says so."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import psycopg
from psycopg import sql

from singer_postgres.core.errors import one_line
from singer_postgres.core.warehouse import copy_stamp, state_table
from singer_postgres.core.wire import OWN
from tidemark.errors import TidemarkError
from tidemark.project import connections, database_settings, meltano_state, state_lock, yaml_edits, yaml_files

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from tidemark.project.directory import Project
    from tidemark.project.sources import SourceDefinition

    Connection = psycopg.Connection[Any]

# tables of streams, and our own beside them
_TABLES = """
    select c.relname from pg_catalog.pg_class c join pg_catalog.pg_namespace n on n.oid = c.relnamespace
    where n.nspname = %(schema)s and c.relkind in ('r', 'p')
        and (c.relname = any(%(streams)s) or %(with_own)s and starts_with(c.relname, %(own)s))
    order by starts_with(c.relname, %(own)s), c.relname
"""


def retire(project: Project, source: SourceDefinition, streams: Sequence[str]) -> Iterator[str]:
    """Take streams out of a source's `select`; or, without streams, the source out of all jobs. Mark them as retired.

    Yields:
        each change in words.

    Raises:
        UsageError: a file can't be changed.
    """
    today = datetime.now(UTC).date().isoformat()
    for stream in [each for each in streams if each not in source.retired_streams]:
        yaml_edits.deselect(project.root / source.path, source.tap, stream, today)
        yield f"{source.path}: {stream} is no longer selected, and marked as retired on {today}"
    if streams:
        return
    files = yaml_files.read(project)
    for document, path in zip(files.documents, files.paths, strict=True):
        if document.get("jobs") and (jobs := yaml_edits.remove_load(path, source.blocks)):
            yield f"{path.relative_to(project.root)}: `{source.blocks}` removed from {' and '.join(jobs)}"
    if not source.retired:
        yaml_edits.annotate_tap(project.root / source.path, source.tap, "retired", today)
        yield f"{source.path}: {source.tap} marked as retired on {today}"


def tables(project: Project, source: SourceDefinition, streams: Sequence[str]) -> list[str]:
    """Return the tables of streams in the warehouse; or, without streams, all of the source and our own in its schema.

    Raises:
        TidemarkError: the warehouse can't be reached.
    """
    with connections.connect(database_settings.warehouse(project, source)) as connection:
        return _tables(connection, source.raw_schema, streams)


def drop(project: Project, source: SourceDefinition, names: Sequence[str], streams: Sequence[str]) -> None:
    """Drop these tables of a source in one transaction, with the state of their streams, or of the source.

    Raises:
        TidemarkError: the warehouse can't be reached, or something depends on a table.
    """
    schema = source.raw_schema
    with connections.connect(database_settings.warehouse(project, source)) as connection:
        try:
            with connection.transaction():
                if names:
                    every = sql.SQL(", ").join(sql.Identifier(schema, name) for name in names)
                    connection.execute(sql.SQL("DROP TABLE {}").format(every))
                # before the commit: state without tables would skip rows, but tables without state are only read again
                if streams:
                    _forget(connection, schema, streams)
                    with state_lock.alone(connection, source):
                        meltano_state.put(project, source, dict.fromkeys(streams))
                else:
                    meltano_state.clear(project, [meltano_state.id_of(project, source)])
        except psycopg.errors.DependentObjectsStillExist as error:
            what = (error.diag.message_detail or one_line(error)).splitlines()[0].rstrip(".")
            raise TidemarkError(f"Nothing was dropped, because {what}: drop that first, then run this again.") from None


def drop_schema(project: Project, source: SourceDefinition) -> bool:
    """Drop a source's schema if nothing is left in it and it is the target's own. Return whether it is gone.

    Raises:
        TidemarkError: the warehouse can't be reached.
    """
    with connections.connect(database_settings.warehouse(project, source)) as connection:
        try:
            with connection.transaction():
                copy_stamp.drop(connection, source.raw_schema)
                connection.execute(sql.SQL("DROP SCHEMA IF EXISTS {}").format(sql.Identifier(source.raw_schema)))
        except (psycopg.errors.DependentObjectsStillExist, psycopg.errors.InsufficientPrivilege):
            return False
    return True


def _forget(connection: Connection, schema: str, streams: Sequence[str]) -> None:
    state = sql.Identifier(schema, state_table.TABLE.name)
    connection.execute(sql.SQL("DELETE FROM {} WHERE stream = any(%s)").format(state), [list(streams)])


def _tables(connection: Connection, schema: str, streams: Sequence[str]) -> list[str]:
    state = sql.Identifier(schema, state_table.TABLE.name)
    found = connection.execute("select to_regclass(%s)", [state.as_string()]).fetchone()
    named: list[str] = []
    if found and found[0] is not None:
        query = sql.SQL("select distinct table_name from {} where %(all)s or stream = any(%(streams)s)").format(state)
        parameters: dict[str, Any] = {"all": not streams, "streams": list(streams)}
        named = [name for (name,) in connection.execute(query, parameters)]
    parameters = {"schema": schema, "streams": named, "own": OWN, "with_own": not streams}
    return [name for (name,) in connection.execute(_TABLES, parameters)]
