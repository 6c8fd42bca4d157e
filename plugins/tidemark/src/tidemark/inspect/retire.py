"""Gives a source up: takes it out of the jobs, marks it, and drops its tables if the user says so."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import psycopg
from psycopg import sql

from singer_postgres.core.errors import one_line
from singer_postgres.core.warehouse import state_table
from singer_postgres.core.wire import OWN
from tidemark.errors import TidemarkError
from tidemark.project import connections, database_settings, meltano_state, yaml_edits, yaml_files

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from tidemark.project.directory import Project
    from tidemark.project.sources import SourceDefinition

    Connection = psycopg.Connection[Any]

# tables of streams, and our own beside them
_TABLES = """
    select c.relname from pg_catalog.pg_class c join pg_catalog.pg_namespace n on n.oid = c.relnamespace
    where n.nspname = %(schema)s and c.relkind in ('r', 'p')
        and (c.relname = any(%(streams)s) or starts_with(c.relname, %(own)s))
    order by starts_with(c.relname, %(own)s), c.relname
"""


def retire(project: Project, source: SourceDefinition) -> Iterator[str]:
    """Take a source out of all jobs and mark it as retired. Yield each change in words.

    Raises:
        UsageError: a file can't be changed.
    """
    files = yaml_files.read(project)
    for document, path in zip(files.documents, files.paths, strict=True):
        if document.get("jobs") and (jobs := yaml_edits.remove_load(path, source.blocks)):
            yield f"{path.relative_to(project.root)}: `{source.blocks}` removed from {' and '.join(jobs)}"
    if not source.retired:
        today = datetime.now(UTC).date().isoformat()
        yaml_edits.annotate_tap(project.root / source.path, source.tap, "retired", today)
        yield f"{source.path}: {source.tap} marked as retired on {today}"


def tables(project: Project, source: SourceDefinition) -> list[str]:
    """Return the tables of a source in the warehouse: those of its streams, and then our own in its schema.

    Raises:
        TidemarkError: the warehouse can't be reached.
    """
    with connections.connect(database_settings.warehouse(project, source)) as connection:
        return _tables(connection, source.raw_schema)


def drop(project: Project, source: SourceDefinition, names: Sequence[str]) -> bool:
    """Drop these tables of a source in one transaction, clear its state, and return whether its schema went with them.

    Raises:
        TidemarkError: the warehouse can't be reached, or something depends on a table.
    """
    schema = source.raw_schema
    with connections.connect(database_settings.warehouse(project, source)) as connection:
        try:
            with connection.transaction():
                every = sql.SQL(", ").join(sql.Identifier(schema, name) for name in names)
                if names:
                    connection.execute(sql.SQL("DROP TABLE {}").format(every))
                # before the commit: state without tables would skip rows, but tables without state are only read again
                meltano_state.clear(project, source)
        except psycopg.errors.DependentObjectsStillExist as error:
            what = (error.diag.message_detail or one_line(error)).splitlines()[0].rstrip(".")
            raise TidemarkError(f"Nothing was dropped, because {what}: drop that first, then run this again.") from None
        try:
            connection.execute(sql.SQL("DROP SCHEMA {}").format(sql.Identifier(schema)))
        except (psycopg.errors.DependentObjectsStillExist, psycopg.errors.InsufficientPrivilege):
            # somebody else's objects are in it, or it is somebody else's
            return False
        except psycopg.errors.InvalidSchemaName:
            return True
    return True


def _tables(connection: Connection, schema: str) -> list[str]:
    state = sql.Identifier(schema, state_table.TABLE.name)
    found = connection.execute("select to_regclass(%s)", [state.as_string()]).fetchone()
    streams: list[str] = []
    if found and found[0] is not None:
        streams = [name for (name,) in connection.execute(sql.SQL("select distinct table_name from {}").format(state))]
    parameters = {"schema": schema, "streams": streams, "own": OWN}
    return [name for (name,) in connection.execute(_TABLES, parameters)]
