"""The demo shop's tables in the warehouse: which there are, and how they are dropped."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import psycopg
from psycopg import sql

from singer_postgres.core.errors import one_line
from singer_postgres.core.warehouse import run_history, state_table, stream_totals
from tidemark.errors import TidemarkError
from tidemark.local import demo
from tidemark.project import demo_files, meltano_state, sources
from tidemark.project.connections import connect
from tidemark.project.database_settings import admin, transformer

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from tidemark.project.database_settings import Source, Warehouse
    from tidemark.project.directory import Project

_KINDS = {"r": "table", "p": "table", "v": "view", "m": "materialized view"}
# by folder of the shop's package, the schema that its models are built in
_SCHEMAS = {
    "models/staging": "staging",
    "models/intermediate": "intermediate",
    "snapshots": "intermediate",
    "models/marts": "marts",
}
_FOUND = """
    select nspname, relname, relkind::text from pg_catalog.pg_class
    inner join pg_catalog.pg_namespace on pg_namespace.oid = relnamespace
    where (nspname, relname) in (select * from unnest(%s::text[], %s::text[])) and relkind in ('r', 'p', 'v', 'm')
    order by array_position(%s::text[], nspname), relname
"""
# what else reads them: views by their rules; partitions and the like go with their table
_READERS = """
    select distinct reader.oid::regclass::text, read.oid::regclass::text
    from pg_catalog.pg_depend
    inner join pg_catalog.pg_rewrite on classid = 'pg_catalog.pg_rewrite'::regclass and pg_rewrite.oid = objid
    inner join pg_catalog.pg_class as reader on reader.oid = ev_class
    inner join pg_catalog.pg_class as read on refclassid = 'pg_catalog.pg_class'::regclass and read.oid = refobjid
    where read.oid = any(%(ours)s::regclass[]) and not reader.oid = any(%(ours)s::regclass[])
    order by 1, 2
"""


@dataclass(frozen=True)
class ShopTable:
    """A table or view of the shop in the warehouse."""

    schema: str
    name: str
    kind: str

    def __str__(self) -> str:
        """Return its name with the schema."""
        return f"{self.schema}.{self.name}"

    @property
    def identifier(self) -> sql.Identifier:
        """Its name in a statement."""
        return sql.Identifier(self.schema, self.name)


def find(project: Project, source: Source, warehouse: Warehouse) -> list[ShopTable]:
    """Return those of the shop's tables and views that the warehouse has: raw first, marts last.

    A raw table counts only if the source is the shop, because another source may have a table of the same name.

    Raises:
        TidemarkError: a database can't be reached.
    """
    with connect(admin(project, source)) as connection:
        raw = [warehouse.default_target_schema] if demo.loaded(connection) else []
    names = [*((schema, name) for schema in raw for name in _raw(project)), *_models(project)]
    schemas, tables = ([pair[place] for pair in names] for place in (0, 1))
    with connect(admin(project, warehouse)) as connection:
        found = connection.execute(_FOUND, [schemas, tables, list(dict.fromkeys(schemas))]).fetchall()
    return [ShopTable(schema, name, _KINDS[kind]) for schema, name, kind in found]


def drop(project: Project, warehouse: Warehouse, tables: Sequence[ShopTable]) -> None:
    """Drop them, and forget the shop's streams: how far they were read, and their runs.

    dbt's role owns the models, and the loader the raw tables, so there is a transaction for each.

    Raises:
        TidemarkError: the warehouse can't be reached, or something of the user's reads one of them.
    """
    raw = [table for table in tables if table.schema == warehouse.default_target_schema]
    models = [table for table in tables if table not in raw]
    with _transaction(transformer(project, warehouse), project) as connection:
        # those of raw too: nothing is dropped if anything else reads a table of either
        _refuse_readers(connection, tables)
        _drop(connection, models)
    with _transaction(warehouse, project) as connection:
        _refuse_readers(connection, raw)
        _drop(connection, raw)
        streams = demo_files.streams(project)
        _forget(connection, warehouse.default_target_schema, streams)
        # before the commit: state without tables would skip rows, and tables without state are only read again
        meltano_state.put(project, sources.find(project, sources.FIRST), dict.fromkeys(streams))


@contextmanager
def _transaction(side: Warehouse, project: Project) -> Iterator[psycopg.Connection[Any]]:
    with connect(admin(project, side)) as connection:
        try:
            with connection.transaction():
                connection.execute("set local lock_timeout = '10s'")
                yield connection
        except psycopg.errors.LockNotAvailable:
            raise TidemarkError("Another session uses the shop's tables; run this again when it ended.") from None
        except psycopg.Error as error:
            raise TidemarkError(f"The shop's tables could not be dropped: {one_line(error)}.") from error


def _drop(connection: psycopg.Connection[Any], tables: Sequence[ShopTable]) -> None:
    for table in reversed(tables):
        # whatever reads it is the shop's and goes anyway
        statement = sql.SQL("DROP {} IF EXISTS {} CASCADE").format(sql.SQL(table.kind.upper()), table.identifier)
        connection.execute(statement)


def _raw(project: Project) -> list[str]:
    return [stream.partition("-")[2] for stream in demo_files.streams(project)]


def _models(project: Project) -> Iterator[tuple[str, str]]:
    shop, transform = project.demo.parent, project.root / "transform"
    prefix = project.variable("DBT_SCHEMA_PREFIX") or ""
    # a model of the user's that took over a name
    theirs = {path.stem for folder in ("models", "snapshots") for path in (transform / folder).rglob("*.sql")}
    for folder, schema in _SCHEMAS.items():
        for path in sorted((shop / folder).glob("*.sql")):
            if path.stem not in theirs:
                yield f"{prefix}{schema}", path.stem


def _refuse_readers(connection: psycopg.Connection[Any], tables: Sequence[ShopTable]) -> None:
    ours = [table.identifier.as_string(connection) for table in tables]
    readers = connection.execute(_READERS, {"ours": ours}).fetchall()
    if readers:
        named = ", ".join(f"{reader} reads {read}" for reader, read in readers[:3])
        more = f" and {len(readers) - 3} more" if len(readers) > 3 else ""  # noqa: PLR2004 - those that are named
        raise TidemarkError(f"Nothing was dropped: {named}{more}; drop that first, then run this again.")


def _forget(connection: psycopg.Connection[Any], schema: str, streams: list[str]) -> None:
    for table in (state_table.TABLE, run_history.TABLE, stream_totals.TABLE):
        name = sql.Identifier(schema, table.name)
        found = connection.execute("select to_regclass(%s)", [name.as_string(connection)]).fetchone()
        if found and found[0] is not None:
            connection.execute(sql.SQL("DELETE FROM {} WHERE stream = any(%s)").format(name), [streams])
