"""Checks the warehouse for obstacles to loading."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from psycopg import sql

from singer_postgres.core.warehouse import dependent_views, state_table
from singer_postgres.core.warehouse import tables as raw_tables
from tidemark.inspect.check.finding import Finding, Level, statement
from tidemark.inspect.check.relations import extension_type

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    import psycopg

    from tidemark.inspect.check.streams import Stream


@dataclass(frozen=True)
class Rights:
    """The role's rights. Those in the schema are None if the schema doesn't exist."""

    role: str
    database: str
    create: bool
    temporary: bool
    usage_in_schema: bool | None
    create_in_schema: bool | None


@dataclass(frozen=True)
class RawTable:
    """A relation with the name of a stream's table. `kind` is pg_class.relkind."""

    name: str
    kind: str
    owner: str
    owned: bool


_RIGHTS = """
    select current_user::text, current_database()::text,
        pg_catalog.has_database_privilege(current_database(), 'create'),
        pg_catalog.has_database_privilege(current_database(), 'temporary'),
        pg_catalog.has_schema_privilege(n.oid, 'usage'), pg_catalog.has_schema_privilege(n.oid, 'create')
    from (select) one left join pg_catalog.pg_namespace n on n.nspname = %s
"""
_TABLES = """
    select c.relname, c.relkind::text, pg_catalog.pg_get_userbyid(c.relowner)::text,
        pg_catalog.pg_has_role(c.relowner, 'usage')
    from pg_catalog.pg_class c join pg_catalog.pg_namespace n on n.oid = c.relnamespace
    where n.nspname = %s and c.relname = any(%s) and c.relkind in ('r', 'p', 'v', 'm', 'f')
    order by c.relname
"""
_HAS_TYPES = "select distinct typname::text from pg_catalog.pg_type where typname = any(%s) and typtype = 'b'"
_AVAILABLE = "select name::text from pg_catalog.pg_available_extensions where name = any(%s)"


def read(
    connection: psycopg.Connection[Any], schema: str, streams: Iterable[Stream], extensions: Mapping[str, str]
) -> Iterator[Finding]:
    """Query the warehouse, and yield all findings about it.

    Args:
        extensions: the extension of each type in the source.
    """
    streams = list(streams)
    row = connection.execute(_RIGHTS, [schema]).fetchone()
    assert row
    rights = Rights(*row)
    yield from privileges(rights, schema)
    names = [state_table.TABLE.name, *(stream.relation.name for stream in streams)]
    tables = [RawTable(*found) for found in connection.execute(_TABLES, [schema, names])]
    yield from ownership(tables, schema, rights.role, streams)
    yield from widening(connection, tables, schema, streams)
    yield from collisions(streams, schema)
    # by type and extension: the source's columns with that type
    wanted: dict[tuple[str, str | None], list[str]] = {}
    for stream in streams:
        for column in stream.columns:
            if column.target_type.extension:
                type_ = extension_type(column)
                wanted.setdefault((type_, extensions.get(type_)), []).append(f"{stream.name}.{column.name}")
    xml = [
        f"{stream.name}.{column.name}"
        for stream in streams
        for column in stream.columns
        if (column.target_type.type or "").removesuffix("[]") == "xml"
    ]
    if xml and not raw_tables.reads_xml(connection):
        what = f"its server was built without XML, so {', '.join(xml)} will become text"
        yield Finding("warehouse", Level.note, what)
    has = {name for (name,) in connection.execute(_HAS_TYPES, [[type_ for type_, _ in wanted]])}
    brought = [extension for _, extension in wanted if extension]
    available = {name for (name,) in connection.execute(_AVAILABLE, [brought])}
    for (type_, extension), columns in wanted.items():
        if type_ not in has:
            yield missing_type(type_, extension, columns, available=extension in available)


def privileges(rights: Rights, schema: str) -> Iterator[Finding]:
    """Yield the rights that the role lacks in the database and in the raw schema."""
    role, database = rights.role, rights.database
    grant_create = statement("GRANT CREATE ON DATABASE {database} TO {role}", database=database, role=role)
    if rights.usage_in_schema is None and not rights.create:
        what = f"there is no schema {schema}, and {role} may not create one"
        yield Finding("warehouse", Level.error, what, (grant_create,))
    elif not rights.create:
        what = f"{role} may not create schemas, which dbt does for its models if they don't exist"
        yield Finding("warehouse", Level.warning, what, (grant_create,))
    if rights.usage_in_schema is False or rights.create_in_schema is False:
        fix = statement("GRANT USAGE, CREATE ON SCHEMA {schema} TO {role}", schema=schema, role=role)
        yield Finding("warehouse", Level.error, f"{role} may not create tables in schema {schema}", (fix,))
    if not rights.temporary:
        fix = statement("GRANT TEMPORARY ON DATABASE {database} TO {role}", database=database, role=role)
        what = f"{role} may not create temporary tables, which changed rows are staged in"
        yield Finding("warehouse", Level.error, what, (fix,))


def ownership(tables: Iterable[RawTable], schema: str, role: str, streams: Iterable[Stream]) -> Iterator[Finding]:
    """Yield the raw tables that can't be loaded."""
    stream_of = {stream.relation.name: stream.name for stream in streams}
    for table in tables:
        stream = stream_of.get(table.name)
        if table.kind not in "rp":
            fix = statement(
                "ALTER TABLE {table} RENAME TO {new}", table=(schema, table.name), new=f"{table.name}_before"
            )
            what = f"{schema}.{table.name} is not a table, and the stream's rows need a table of that name"
            yield Finding("warehouse", Level.error, what, (fix,), stream)
        elif not table.owned:
            fix = statement("ALTER TABLE {table} OWNER TO {role}", table=(schema, table.name), role=role)
            what = f"{schema}.{table.name} belongs to {table.owner}, and only its owner can add the columns it may need"
            yield Finding("warehouse", Level.error, what, (fix,), stream)


def widening(
    connection: psycopg.Connection[Any], tables: Iterable[RawTable], schema: str, streams: Iterable[Stream]
) -> Iterator[Finding]:
    """Yield the objects that would block widening a raw column after the source's column was widened."""
    stream_of = {stream.relation.name: stream.name for stream in streams}
    for table in tables:
        if table.owned and table.kind in "rp" and table.name in stream_of:
            for why in dependent_views.refusals(connection, sql.Identifier(schema, table.name)):
                what = f"a column of {schema}.{table.name} can't be widened when the source's is: {why}"
                yield Finding("warehouse", Level.warning, what, (), stream_of[table.name])


def collisions(streams: Iterable[Stream], schema: str) -> Iterator[Finding]:
    """Yield the tables that two streams would load into."""
    streams = list(streams)
    for table, count in Counter(stream.relation.name for stream in streams).items():
        if count > 1:
            both = " and ".join(stream.name for stream in streams if stream.relation.name == table)
            what = f"{both} would load into one table, {schema}.{table}; give one a tap and a target of its own"
            yield Finding("warehouse", Level.error, what)


def missing_type(type_: str, extension: str | None, columns: list[str], *, available: bool) -> Finding:
    """Return the note on a type that the source has and the warehouse lacks."""
    what = f"has no type {type_}, so {', '.join(columns)} will become text"
    if extension is None:
        return Finding("warehouse", Level.note, what)
    if not available:
        return Finding("warehouse", Level.note, f"{what}; its server does not have extension {extension}")
    fix = statement("CREATE EXTENSION {extension}", extension=extension)
    return Finding("warehouse", Level.note, f"{what}; with extension {extension} they keep their type", (fix,))
