"""The publication of a source's LOG_BASED streams: which tables it is to have, and the statements that it lacks."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from singer_postgres.core.errors import SingerPostgresError
from singer_postgres.core.source import log_tables, row_filters
from singer_postgres.core.source.relations import find
from singer_postgres.core.sql_compat import quoted
from tidemark.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

    import psycopg

    from tidemark.inspect.check.streams import Configuration, Stream

    Connection = psycopg.Connection[Any]
    Tables = dict[tuple[str, str], "PublishedTable"]

_PUBLISHED = """
    select n.nspname::text, c.relname::text, pg_get_expr(r.prqual, r.prrelid), case when r.prattrs is not null then
        array(
            select attname::text from pg_catalog.pg_attribute
            where attrelid = c.oid and attnum = any(r.prattrs::int2[]) order by attnum
        ) end
    from pg_catalog.pg_publication p
    join pg_catalog.pg_publication_rel r on r.prpubid = p.oid join pg_catalog.pg_class c on c.oid = r.prrelid
    join pg_catalog.pg_namespace n on n.oid = c.relnamespace where p.pubname = %s
"""
# also those that are published with their schema
_COVERED = "select schemaname::text, tablename::text from pg_catalog.pg_publication_tables where pubname = %s"


@dataclass(frozen=True)
class PublishedTable:
    """A table of a publication.

    Attributes:
        condition: the row filter; None for all rows.
        columns: the published columns; None for all.
    """

    schema: str
    name: str
    condition: str | None = None
    columns: tuple[str, ...] | None = None

    def whole(self) -> PublishedTable:
        """Return the table with all rows and columns."""
        return PublishedTable(self.schema, self.name)

    def __str__(self) -> str:
        columns = f" ({', '.join(map(quoted, self.columns))})" if self.columns else ""
        where = f" WHERE ({self.condition})" if self.condition else ""
        return f"{quoted(self.schema, self.name)}{columns}{where}"


def wanted(connection: Connection, configuration: Configuration, selected: Iterable[Stream]) -> Tables:
    """Return the tables to publish.

    Raises:
        UsageError: the log can't identify rows of a table, or can't apply the condition of a stream.
    """
    found = {}
    for stream in selected:
        relation = stream.relation.described
        if stream.method != "LOG_BASED" or relation is None:
            continue
        condition = row_filters.condition(configuration.where.get(stream.name, ()))
        try:
            # before anything is changed: the application could no longer update such a table
            log_tables.require_identity(connection, configuration.publication, relation, stream.key or relation.key)
            if condition is not None:
                identity = log_tables.identity_columns(log_tables.identities(connection, relation))
                row_filters.refuse(connection, relation, condition, identity=identity)
        except SingerPostgresError as error:
            raise UsageError(str(error)) from error
        found[relation.schema, relation.name] = PublishedTable(relation.schema, relation.name, condition)
    return found


def statements(connection: Connection, publication: str, wanted: Tables) -> list[tuple[str, str]]:
    """Return the statements that bring the publication up to date, each with what it does."""
    name = quoted(publication)
    there = connection.execute(
        "select puballtables from pg_catalog.pg_publication where pubname = %s", [publication]
    ).fetchone()
    if there is None:
        create = (
            f"CREATE PUBLICATION {name} FOR TABLE {_tables(wanted.values())} WITH (publish_via_partition_root = true);"
        )
        return [(create, f"publishes {_count(wanted)}")]
    if there[0]:
        # it has all tables, and none can be added
        return []
    published = {
        (schema, table): PublishedTable(schema, table, filter_, tuple(listed) if listed else None)
        for schema, table, filter_, listed in connection.execute(_PUBLISHED, [publication]).fetchall()
    }
    if changed := _changed(connection, wanted, published):
        # the only statement that changes a table's condition. It leaves the tables alone that stay as they are.
        of = {**wanted, **published, **changed}
        set_ = f"ALTER PUBLICATION {name} SET TABLE {_tables(of[path] for path in wanted)};"
        what = f"publishes {_count(wanted)}, {len(changed)} of them with another condition"
        return [(set_, f"{what}: `tidemark slots repair` compares its rows, if it is loaded")]
    found = []
    covered = set(connection.execute(_COVERED, [publication]).fetchall())
    if missing := [wanted[path] for path in wanted.keys() - published.keys() - covered]:
        found.append((f"ALTER PUBLICATION {name} ADD TABLE {_tables(missing)};", f"publishes {_count(missing)} more"))
    if left := [published[path].whole() for path in published.keys() - wanted.keys()]:
        found.append((f"ALTER PUBLICATION {name} DROP TABLE {_tables(left)};", f"reads {_count(left)} no longer"))
    return found


def _changed(
    connection: Connection,
    wanted: Mapping[tuple[str, str], PublishedTable],
    published: Mapping[tuple[str, str], PublishedTable],
) -> Tables:
    """Return the published tables whose conditions are others now, each with the columns that are published."""
    changed = {}
    for path, table in wanted.items():
        before = published.get(path)
        if before is None or before.condition == table.condition:
            continue
        relation = find(connection, *path)
        assert relation
        if not row_filters.equal(connection, relation, before.condition, table.condition):
            changed[path] = replace(table, columns=before.columns)
    return changed


def _tables(tables: Iterable[PublishedTable]) -> str:
    return ", ".join(map(str, sorted(tables, key=lambda table: (table.schema, table.name))))


def _count(tables: Collection[object]) -> str:
    return "one table" if len(tables) == 1 else f"{len(tables)} tables"
