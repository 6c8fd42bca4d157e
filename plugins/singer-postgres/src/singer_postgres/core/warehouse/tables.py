"""The tables that streams load into. They get the source's exact types and any new columns; the rest is left alone."""

from __future__ import annotations

import functools
import re
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from singer_postgres.core import session
from singer_postgres.core.errors import ColumnRecreatedError, KeyChangedError, NameTakenError, WarehouseAlteredError
from singer_postgres.core.sql_compat import errors, sql
from singer_postgres.core.warehouse import (
    brief_locks,
    copy_stamp,
    late_key,
    loaded_columns,
    manual_changes,
    merge,
    partitions,
    schema_changes,
)
from singer_postgres.core.warehouse.metadata_columns import COMMITS, METADATA
from singer_postgres.core.warehouse.schema_changes import LOADED_XID, SchemaDrift
from singer_postgres.core.wire import OWN

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    import psycopg

    from singer_postgres.core.warehouse.loaded_columns import LoadedColumns
    from singer_postgres.core.warehouse.partitions import Partitions
    from singer_postgres.core.warehouse.schema_changes import Change
    from singer_postgres.core.wire import Table

# the indexes on the loading transaction's id; whether new rows are in them, null if that is not known
_XID_INDEXES = r"""
    select c.relname::text,
        indpred is null or after.xid <= pg_catalog.pg_snapshot_xmax(pg_catalog.pg_current_snapshot())
    from pg_catalog.pg_index i
    join pg_catalog.pg_class c on c.oid = i.indexrelid
    join pg_catalog.pg_attribute a on a.attrelid = i.indrelid and a.attnum = i.indkey[0]
    cross join lateral (
        select substring(pg_catalog.pg_get_expr(indpred, indrelid) from '^\(\w+ > ''(\d+)''::xid8\)$')::xid8 as xid
    ) after
    where i.indrelid = to_regclass(%s) and a.attname = %s and i.indisvalid
"""


def ensure_schema(connection: psycopg.Connection[Any], schema: str) -> None:
    """Create the schema if it doesn't exist. A role that may not create schemas can still use an existing one."""
    found = connection.execute("select from pg_catalog.pg_namespace where nspname = %s", [schema]).fetchone()
    if found is None:
        # another run may create it at the same moment, which IF NOT EXISTS does not see
        with suppress(errors.UniqueViolation), connection.transaction():
            connection.execute(sql.SQL("CREATE SCHEMA IF NOT EXISTS {}").format(sql.Identifier(schema)))


@dataclass(frozen=True)
class EnsuredTable:
    """A stream's table after it was created or changed for this run.

    Attributes:
        casts: the table's types, by column name, for columns that cast the stream's values.
        changes: the changes made to its columns.
        columns: the source's columns that the table has now. A `watched` column still counts as the old one.
        columns_when_whole: the source's columns that the table has once all rows are loaded.
        watched: columns whose name now belongs to another column of the source. Their old values must equal the new.
        compared: the other old columns. A row whose values in them are equal counts as unchanged.
        triggers: triggers that could skip or alter rows.
        lacks_key: it has no unique index on the stream's key yet; see `late_key`.
        partitions: how it is partitioned; None if it is not.
    """

    casts: Mapping[str, str]
    changes: Sequence[Change]
    columns: LoadedColumns
    columns_when_whole: LoadedColumns
    watched: tuple[str, ...] = ()
    compared: tuple[str, ...] = ()
    triggers: tuple[str, ...] = ()
    lacks_key: bool = False
    partitions: Partitions | None = None


def ensure_table(  # noqa: PLR0913 - each argument has a name
    connection: psycopg.Connection[Any],
    schema: str,
    table: Table,
    *,
    before: LoadedColumns | None = None,
    whole: bool = False,
    keep_types: bool = False,
    key_later: bool = False,
    key_pending: bool = False,
    partitioning: Mapping[str, Any] | None = None,
) -> EnsuredTable:
    """Create the stream's table, or change it to fit the stream's current columns.

    Args:
        before: the stream's columns at its last load.
        whole: this run reads all rows.
        keep_types: existing columns keep their types, and records are converted to them.
        key_later: a new table gets its key at the end of the load.
        key_pending: an existing table may still lack its key.
        partitioning: how to partition a new table: the stream's entry in `raw_partitions`.

    Raises:
        SingerPostgresError: the table can't hold the stream's rows unchanged.
    """
    ours = sorted(column.name for column in table.columns if column.name in _own(table) or column.name.startswith(OWN))
    if ours:
        msg = (
            f"{table.schema}.{table.name} has a column {', '.join(ours)}, a name of the warehouse's own columns: "
            "deselect it, or rename it in a view and read that."
        )
        raise NameTakenError(msg)
    wanted = {**types_here(connection, table), **{name: type_ for name, (type_, _) in _own(table).items()}}
    manual_changes.refuse(connection, schema, table.name)
    has = columns_of(connection, schema, table.name)
    if not has:
        partitioned = partitions.wanted(partitioning, f"{table.schema}.{table.name}", table.key, wanted)
        # the key of a partitioned table can't be made of an index that was built before
        key_later = key_later and bool(table.key) and not partitioned
        parts = [
            _definition(column, f"{type_} NOT NULL" if column in table.key else type_)
            for column, type_ in wanted.items()
        ]
        if table.key and not key_later:
            parts.append(sql.SQL("PRIMARY KEY ({})").format(_names(table.key)))
        name = sql.Identifier(schema, table.name)
        clause = partitioned.clause if partitioned else sql.SQL("")
        connection.execute(sql.SQL("CREATE TABLE {} ({}){}").format(name, sql.SQL(", ").join(parts), clause))
        if partitioned:
            partitions.create_hash(connection, schema, table.name, partitioned.count)
        # read back, to have the types under the server's own names
        columns = loaded_columns.loaded_columns(table, columns_of(connection, schema, table.name))
        found_as = partitions.find(connection, schema, table.name, setting=partitioning, key=table.key)
        return EnsuredTable({}, [], columns, columns, lacks_key=key_later, partitions=found_as)
    _refuse_other_metadata(schema, table, has)
    found = SchemaDrift(connection, schema, table, before, whole=whole)
    found.rename(wanted, has)
    old = tuple(name for name in has if name in {column.name for column in table.columns})
    found_as = partitions.find(connection, schema, table.name, setting=partitioning, key=table.key)
    if found_as and not keep_types:
        partitions.refuse_to_widen(found_as, schema, table, wanted, has)
    casts = {} if keep_types else found.retype(wanted, has)
    found.add(wanted, has)
    found.drop()
    lacks_key = bool(table.key) and late_key.unique_index(connection, schema, table.name, table.key) is None
    if lacks_key and not key_pending:
        raise _other_key(connection, schema, table, names_before=found.names_before, there=old)
    watched = tuple(found.watched)
    return EnsuredTable(
        casts,
        found.changes,
        found.columns(has),
        loaded_columns.loaded_columns(table, has, before, same=found.is_same),
        watched,
        tuple(name for name in old if name not in watched),
        tuple(manual_changes.triggers(connection, schema, table.name)),
        lacks_key,
        found_as,
    )


def refuse_other_values(
    connection: psycopg.Connection[Any], schema: str, table: Table, ensured: EnsuredTable, stage: sql.Composable
) -> None:
    """Refuse columns that took over another column's name, unless the rows of `stage` have the same values in them.

    Raises:
        SingerPostgresError: the values differ, or no row shows that they are equal.
    """
    compared = [name for name in ensured.compared if name not in table.key]
    row = None
    if compared:
        # imported late, as that module is made of this one's names
        target = sql.Identifier(schema, table.name)
        query = merge.other_values(stage, target, columns=ensured.watched, compared=compared, key=table.key)
        row = connection.execute(query).fetchone()
    if not row or row[0]:
        raise ColumnRecreatedError(schema_changes.is_anothers(schema, table, ensured.watched[0]))


# the MeltanoLabs target creates these without a zone, and its tables can be taken over
_INSTANTS = {"timestamp with time zone", "timestamp without time zone"}


def _own(table: Table) -> dict[str, tuple[str, str]]:
    """Return the columns that a table has beside the source's."""
    return {**METADATA, **(COMMITS if table.commits else {})}


def _refuse_other_metadata(schema: str, table: Table, has: Mapping[str, str]) -> None:
    """Refuse a table whose metadata columns were altered here. The source can't restore their values."""
    for name, (type_, _) in _own(table).items():
        here = has.get(name, type_)
        if here == type_ or {here, type_} <= _INSTANTS:
            continue
        quoted = sql.Identifier(name).as_string()
        msg = (
            f"{schema}.{table.name}.{name} was altered in the warehouse, and is {here} now. ALTER TABLE "
            f"{sql.Identifier(schema, table.name).as_string()} ALTER COLUMN {quoted} TYPE {type_} "
            f"USING {quoted}::text::{type_};"
        )
        raise WarehouseAlteredError(msg)


def columns_of(connection: psycopg.Connection[Any], schema: str, table: str) -> dict[str, str]:
    """Return the columns of a table with their types; an empty dict if the table doesn't exist."""
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
    """Return each column's type in the warehouse: the source's type, or text if this server lacks it."""
    types = {column.name: column.type for column in table.columns}
    for column in table.columns:
        if column.extension:
            types[column.name] = _extension_type(connection, column.type)
    # a server built without libxml has the type, but can't parse its values
    xml = {name: type_ for name, type_ in types.items() if type_.removesuffix("[]") == "xml"}
    if xml and not reads_xml(connection):
        types |= {name: type_.replace("xml", "text") for name, type_ in xml.items()}
    return types


def _extension_type(connection: psycopg.Connection[Any], type_: str) -> str:
    """Return an extension's type as format_type() gives it on this server, or text if this server lacks it."""
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


def reads_xml(connection: psycopg.Connection[Any]) -> bool:
    """Return whether this server was built with libxml."""
    try:
        with connection.transaction():
            connection.execute("select '<a/>'::pg_catalog.xml")
    except errors.FeatureNotSupported:
        return False
    return True


def _other_key(
    connection: psycopg.Connection[Any],
    schema: str,
    table: Table,
    *,
    names_before: Mapping[str, str],
    there: Sequence[str],
) -> KeyChangedError:
    """Return the error for a table without a unique index on the stream's key.

    Args:
        names_before: the old names of columns that this transaction renames. A refusal rolls the renames back.
        there: the columns that existed before this transaction.
    """
    name = sql.Identifier(schema, table.name).as_string()
    what = (
        f"{schema}.{table.name} has no unique index on the stream's key ({', '.join(table.key)}), so rows can't be "
        "matched."
    )
    if not set(table.key) <= set(there):
        msg = f"{what} {schema_changes.keep_apart(schema, table)}"
        return KeyChangedError(msg)
    columns = ", ".join(sql.Identifier(names_before.get(column, column)).as_string() for column in table.key)
    found = manual_changes.primary_key(connection, schema, table.name)
    # the old key would refuse rows that differ only in the new one
    drop = f"DROP CONSTRAINT {sql.Identifier(found).as_string()}, " if found else ""
    msg = (
        f"{what} Create one: ALTER TABLE {name} {drop}ADD PRIMARY KEY ({columns}); if existing rows violate it: "
        f"{schema_changes.keep_apart(schema, table)}"
    )
    return KeyChangedError(msg)


def is_empty(connection: psycopg.Connection[Any], schema: str, table: str) -> bool:
    """Return whether a table has no rows."""
    query = sql.SQL("select exists (select from {})").format(sql.Identifier(schema, table))
    row = connection.execute(query).fetchone()
    assert row
    return not row[0]


def set_defaults(connection: psycopg.Connection[Any], schema: str, table: str) -> None:
    """Give the metadata columns the defaults that rows get which are copied into the table; see `copy_stamp`."""
    if not copy_stamp.are_set(_defaults(connection, schema, table)):
        copy_stamp.ensure(connection, schema)
        _alter_defaults(connection, schema, table, copy_stamp.defaults(schema))


def drop_defaults(connection: psycopg.Connection[Any], schema: str, table: str) -> None:
    """Drop the defaults, if there are any. They hold for first loads only, and nothing relies on them."""
    if has := _defaults(connection, schema, table):
        defaults = dict.fromkeys(has)
        brief_locks.if_possible(
            connection,
            lambda: _alter_defaults(connection, schema, table, defaults),
            table=sql.Identifier(schema, table),
        )


def _defaults(connection: psycopg.Connection[Any], schema: str, table: str) -> dict[str, str]:
    """Return the defaults of the metadata columns that have one."""
    rows = connection.execute(
        "select attname, pg_catalog.pg_get_expr(adbin, adrelid) from pg_catalog.pg_attribute "
        "join pg_catalog.pg_attrdef on adrelid = attrelid and adnum = attnum "
        "where attrelid = to_regclass(%s) and attname = any(%s)",
        [sql.Identifier(schema, table).as_string(connection), list(METADATA)],
    ).fetchall()
    return dict(rows)


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
    """Index the loading transaction's id, by which incremental models find new rows.

    The index leaves out the rows that are there already: a model that needs those reads the whole table anyway, and to
    sort millions of equal ids would take as long as to build the key. In a restored warehouse, transactions count from
    the beginning again, so such an index would leave out all new rows for long; it is replaced.

    This runs in a transaction of its own: it takes long, and readers must not wait for earlier changes meanwhile.
    """
    name = sql.Identifier(schema, table)
    rows = connection.execute(_XID_INDEXES, [name.as_string(connection), LOADED_XID]).fetchall()
    if not any(is_current for _, is_current in rows):
        brief_locks.if_possible(connection, lambda: _create_xid_index(connection, name), table=name)
    for index in [index for index, is_current in rows if is_current is False]:
        drop = sql.SQL("DROP INDEX IF EXISTS {}").format(sql.Identifier(schema, index))
        brief_locks.if_possible(connection, functools.partial(connection.execute, drop), table=name)


def _create_xid_index(connection: psycopg.Connection[Any], name: sql.Identifier) -> None:
    connection.execute(session.NO_STATEMENT_TIMEOUT)
    row = connection.execute("select pg_current_xact_id()::text").fetchone()
    assert row
    connection.execute(
        sql.SQL("CREATE INDEX ON {} ({xid}) WHERE {xid} > {now}::xid8").format(
            name, xid=sql.Identifier(LOADED_XID), now=sql.Literal(row[0])
        )
    )


def data_columns(table: Table) -> Sequence[str]:
    """Return the names of the columns that come from the source."""
    return [column.name for column in table.columns]
