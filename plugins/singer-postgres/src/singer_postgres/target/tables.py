"""The tables that streams land in: made with the source's exact types, widened by new columns, otherwise left alone."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from psycopg import errors, sql

from singer_postgres.errors import SingerPostgresError
from singer_postgres.target import locks
from singer_postgres.target.drift import Drift

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    import psycopg

    from singer_postgres.target.drift import Change, Shape
    from singer_postgres.wire import Table

LOADED_XID = "_tidemark_loaded_xid"

# what the Singer SDK says these hold, and how a row gets it. An instant of the source's and numbers of the run are
# parameters; what the server knows is an expression.
METADATA: dict[str, tuple[str, str]] = {
    "_sdc_extracted_at": ("timestamp with time zone", "{extracted_at}::timestamptz"),
    "_sdc_received_at": ("timestamp with time zone", "now()"),
    "_sdc_batched_at": ("timestamp with time zone", "now()"),
    "_sdc_deleted_at": ("timestamp with time zone", "NULL::timestamptz"),
    "_sdc_sequence": ("bigint", "{sequence}::bigint"),
    "_sdc_table_version": ("bigint", "NULL::bigint"),
    "_sdc_sync_started_at": ("bigint", "{sync_started_at}::bigint"),
    LOADED_XID: ("xid8", "pg_current_xact_id()"),
}


@dataclass(frozen=True)
class Stamp:
    """The values of a chunk's metadata columns that are not the server's to know.

    Attributes:
        extracted_at: the instant of the snapshot that the rows were read under.
        sequence: milliseconds since the epoch at which the chunk was queued.
        sync_started_at: milliseconds since the epoch at which this target started.
    """

    extracted_at: str
    sequence: int
    sync_started_at: int

    def expressions(self) -> dict[str, sql.Composable]:
        """Return the SQL of each metadata column's value."""
        values = {name: sql.Literal(value) for name, value in vars(self).items()}
        return {name: sql.SQL(expression).format(**values) for name, (_, expression) in METADATA.items()}


def ensure_schema(connection: psycopg.Connection[Any], schema: str) -> None:
    """Make the schema, unless it is there: whoever may not create one can still use it."""
    found = connection.execute("select from pg_catalog.pg_namespace where nspname = %s", [schema]).fetchone()
    if found is None:
        connection.execute(sql.SQL("CREATE SCHEMA IF NOT EXISTS {}").format(sql.Identifier(schema)))


def ensure_table(
    connection: psycopg.Connection[Any],
    schema: str,
    table: Table,
    *,
    before: Shape | None = None,
    keep_types: bool = False,
) -> tuple[dict[str, str], list[Change]]:
    """Make the stream's table, or bring it to the shape that the stream has now.

    Args:
        before: what the stream was when it was loaded last.
        keep_types: let columns that are there keep their types, whatever the stream's are: records are converted.

    Returns:
        The types, by name, of columns that take the stream's values by a cast; and what was changed.

    Raises:
        SingerPostgresError: it can't hold the stream's rows as they are.
    """
    ours = sorted({column.name for column in table.columns} & METADATA.keys())
    if ours:
        msg = (
            f"{table.schema}.{table.name} has a column {', '.join(ours)}, a name of the warehouse's own columns: "
            "deselect it, or rename it in a view and read that."
        )
        raise SingerPostgresError(msg)
    wanted = {**types_here(connection, table), **{name: type_ for name, (type_, _) in METADATA.items()}}
    has = columns_of(connection, schema, table.name)
    if not has:
        parts = [_definition(column, type_) for column, type_ in wanted.items()]
        if table.key:
            parts.append(sql.SQL("PRIMARY KEY ({})").format(_names(table.key)))
        name = sql.Identifier(schema, table.name)
        connection.execute(sql.SQL("CREATE TABLE {} ({})").format(name, sql.SQL(", ").join(parts)))
        return {}, []
    drift = Drift(connection, schema, table, before)
    drift.rename(has)
    casts = {} if keep_types else drift.retype(wanted, has)
    drift.add(wanted, has)
    drift.drop()
    _refuse_other_key(connection, schema, table)
    return casts, drift.changes


def columns_of(connection: psycopg.Connection[Any], schema: str, table: str) -> dict[str, str]:
    """Return the columns of a table with their types; nothing if there is no such table."""
    rows = connection.execute(
        "select attname, format_type(atttypid, atttypmod) from pg_catalog.pg_attribute "
        "where attrelid = to_regclass(%s) and attnum > 0 and not attisdropped order by attnum",
        [sql.Identifier(schema, table).as_string(connection)],
    ).fetchall()
    return dict(rows)


def definitions(types: Mapping[str, str]) -> sql.Composable:
    """Return the column definitions of a table with columns of `types`."""
    return sql.SQL(", ").join(_definition(name, type_) for name, type_ in types.items())


def _definition(name: str, type_: str) -> sql.Composable:
    return sql.Identifier(name) + sql.SQL(f" {type_}")


def _names(names: Iterable[str]) -> sql.Composable:
    return sql.SQL(", ").join(map(sql.Identifier, names))


def types_here(connection: psycopg.Connection[Any], table: Table) -> dict[str, str]:
    """Return each column's type here: the source's, or text for one that this server lacks."""
    types = {column.name: column.type for column in table.columns}
    for column in table.columns:
        if column.extension:
            types[column.name] = _extension_type(connection, column.type)
    # a server that is built without libxml has the type, and reads no value of it
    xml = {name: type_ for name, type_ in types.items() if type_.removesuffix("[]") == "xml"}
    if xml and not _reads_xml(connection):
        types |= {name: type_.replace("xml", "text") for name, type_ in xml.items()}
    return types


def _extension_type(connection: psycopg.Connection[Any], type_: str) -> str:
    """Return an extension's type as format_type() gives it here, or text if it isn't here."""
    found = re.fullmatch(r'(?:"((?:[^"]|"")*)"|([^"(\[]+))(.*)', type_)
    assert found, type_
    quoted, plain, rest = found.groups()
    row = connection.execute(
        "select pg_catalog.format_type(t.oid, null) "
        "from pg_catalog.pg_type t join pg_catalog.pg_namespace n on n.oid = t.typnamespace "
        "where t.typname = %s and t.typtype = 'b' order by n.nspname = 'public' desc, t.oid limit 1",
        [plain or quoted.replace('""', '"')],
    ).fetchone()
    if row is None:
        return "text[]" if rest.endswith("[]") else "text"
    return f"{row[0]}{rest}"


def _reads_xml(connection: psycopg.Connection[Any]) -> bool:
    try:
        with connection.transaction():
            connection.execute("select '<a/>'::pg_catalog.xml")
    except errors.FeatureNotSupported:
        return False
    return True


def _refuse_other_key(connection: psycopg.Connection[Any], schema: str, table: Table) -> None:
    if not table.key:
        return
    rows = connection.execute(
        "select array_agg(a.attname::text) from pg_catalog.pg_index i "
        "join pg_catalog.pg_attribute a on a.attrelid = i.indrelid and a.attnum = any(i.indkey) "
        "where i.indrelid = to_regclass(%s) and i.indisunique and i.indpred is null and i.indexprs is null "
        "group by i.indexrelid",
        [sql.Identifier(schema, table.name).as_string(connection)],
    ).fetchall()
    if not any(set(row[0]) == set(table.key) for row in rows):
        columns = ", ".join(f'"{column}"' for column in table.key)
        found = connection.execute(
            "select conname from pg_catalog.pg_constraint where conrelid = to_regclass(%s) and contype = 'p'",
            [sql.Identifier(schema, table.name).as_string(connection)],
        ).fetchone()
        # the old key would refuse rows that the new one tells apart
        drop = f'DROP CONSTRAINT "{found[0]}", ' if found else ""
        msg = (
            f"{schema}.{table.name} has no unique index on the stream's key ({', '.join(table.key)}), so rows can't be "
            f'matched. Make one: ALTER TABLE "{schema}"."{table.name}" {drop}ADD PRIMARY KEY ({columns});'
        )
        raise SingerPostgresError(msg)


def is_empty(connection: psycopg.Connection[Any], schema: str, table: str) -> bool:
    """Return whether a table has no row."""
    query = sql.SQL("select exists (select from {})").format(sql.Identifier(schema, table))
    row = connection.execute(query).fetchone()
    assert row
    return not row[0]


def set_defaults(connection: psycopg.Connection[Any], schema: str, table: str, stamp: Stamp) -> None:
    """Let the metadata columns have a load's values by default, so that COPY need not be given them row by row.

    The expressions cost next to nothing a row; the same values in the data would cost a third of the load.
    """
    _alter_defaults(connection, schema, table, {k: v for k, v in stamp.expressions().items() if "deleted" not in k})


def drop_defaults(connection: psycopg.Connection[Any], schema: str, table: str) -> None:
    """Take the defaults away again, if they are there: they were true of that load alone. Nothing relies on them."""
    rows = connection.execute(
        "select attname from pg_catalog.pg_attribute "
        "where attrelid = to_regclass(%s) and atthasdef and attname = any(%s)",
        [sql.Identifier(schema, table).as_string(connection), list(METADATA)],
    ).fetchall()
    if rows:
        defaults = dict.fromkeys(name for (name,) in rows)
        locks.if_possible(
            connection,
            lambda: _alter_defaults(connection, schema, table, defaults),
            table=sql.Identifier(schema, table),
        )


def _alter_defaults(
    connection: psycopg.Connection[Any], schema: str, table: str, defaults: Mapping[str, sql.Composable | None]
) -> None:
    actions = [
        sql.SQL("ALTER COLUMN {} ").format(sql.Identifier(column))
        + (sql.SQL("DROP DEFAULT") if default is None else sql.SQL("SET DEFAULT ") + default)
        for column, default in defaults.items()
    ]
    connection.execute(sql.SQL("ALTER TABLE {} {}").format(sql.Identifier(schema, table), sql.SQL(", ").join(actions)))


def ensure_xid_index(connection: psycopg.Connection[Any], schema: str, table: str) -> None:
    """Index the loading transaction, which incremental models look rows up by.

    In a transaction of its own, as it takes its time and readers must not wait for what was done before.
    """
    row = connection.execute(
        "select from pg_catalog.pg_index i join pg_catalog.pg_attribute a "
        "on a.attrelid = i.indrelid and a.attnum = i.indkey[0] "
        "where i.indrelid = to_regclass(%s) and a.attname = %s",
        [sql.Identifier(schema, table).as_string(connection), LOADED_XID],
    ).fetchone()
    if row is None:
        name = sql.Identifier(schema, table)
        create = sql.SQL("CREATE INDEX ON {} ({})").format(name, sql.Identifier(LOADED_XID))
        locks.if_possible(connection, lambda: connection.execute(create), table=name)


def data_columns(table: Table) -> Sequence[str]:
    """Return the names of the columns that come from the source."""
    return [column.name for column in table.columns]
