"""Builds the key of a table at the end of its first load.

To keep an index up to date row by row takes twice the CPU time and much more WAL than to build it once. Until then the
table can hold a row twice: it may have moved to another range between two snapshots, and a killed run's last chunks are
read again. Of such rows only the newest stays.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from singer_postgres.core import session
from singer_postgres.core.errors import ConstraintError
from singer_postgres.core.sql_compat import errors, sql

if TYPE_CHECKING:
    from collections.abc import Iterable

    import psycopg

    from singer_postgres.core.wire import Table

    Connection = psycopg.Connection[Any]

# PostgreSQL's limit for names
_NAME_BYTES = 63
_INDEXES = """
    select c.relname::text, array_agg(a.attname::text)
    from pg_catalog.pg_index i
    join pg_catalog.pg_class c on c.oid = i.indexrelid
    join pg_catalog.pg_attribute a on a.attrelid = i.indrelid
        and a.attnum = any((i.indkey::int2[])[0:i.indnkeyatts - 1])
    where i.indrelid = to_regclass(%s) and i.indisunique and i.indisvalid and i.indimmediate
    and i.indpred is null and i.indexprs is null
    group by c.oid, c.relname order by bool_or(i.indisprimary) desc, 1
"""
_HAS_PRIMARY = "select exists (select from pg_catalog.pg_index where indrelid = to_regclass(%s) and indisprimary)"


def unique_index(connection: Connection, schema: str, table: str, key: Iterable[str]) -> str | None:
    """Return the name of a unique index on exactly the columns of `key`, which ON CONFLICT can use."""
    rows = connection.execute(_INDEXES, [sql.Identifier(schema, table).as_string()]).fetchall()
    return next((name for name, columns in rows if set(columns) == set(key)), None)


def build(connection: Connection, schema: str, table: Table, *, any_may_stay: bool = False) -> int:
    """Build a unique index on the key, in the caller's transaction. Readers don't wait for it.

    Args:
        any_may_stay: all rows are read again, so of rows of one snapshot that have the same key, any may stay.

    Returns:
        The number of rows that were removed because a newer row has the same key.

    Raises:
        ConstraintError: rows of one snapshot have the same key.
    """
    if unique_index(connection, schema, table.name, table.key):
        return 0
    target, key = sql.Identifier(schema, table.name), sql.SQL(", ").join(map(sql.Identifier, table.key))
    connection.execute(session.NO_STATEMENT_TIMEOUT)
    create = sql.SQL("CREATE UNIQUE INDEX ON {} ({})").format(target, key)
    try:
        with connection.transaction():
            connection.execute(create)
    except errors.UniqueViolation:
        removed = connection.execute(
            sql.SQL(
                "DELETE FROM {target} WHERE (tableoid, ctid) IN (SELECT tableoid, ctid FROM (SELECT tableoid, ctid, "
                "{place} OVER (PARTITION BY {key} ORDER BY _sdc_extracted_at DESC) AS place FROM {target}) AS placed "
                "WHERE place > 1)"
            ).format(target=target, key=key, place=sql.SQL("row_number()" if any_may_stay else "rank()"))
        ).rowcount
    else:
        return 0
    try:
        connection.execute(create)
    except errors.UniqueViolation as error:
        msg = (
            f"The source has several rows with the same key, so {schema}.{table.name} can't have the primary key "
            f"({', '.join(table.key)}). Name columns that identify a row (`table-key-properties`), or remove the "
            f"doubled rows; then `tidemark state rewind {table.schema}-{table.name} --to beginning`."
        )
        raise ConstraintError(msg) from error
    return removed


def constrain(connection: Connection, schema: str, table: Table) -> None:
    """Make the index the primary key, unless the table has one: in a moment, under a lock that readers don't share."""
    target = sql.Identifier(schema, table.name)
    has_primary = connection.execute(_HAS_PRIMARY, [target.as_string()]).fetchone()
    index = unique_index(connection, schema, table.name, table.key)
    if has_primary == (True,) or index is None:
        return
    # the name that PostgreSQL would give it
    name = table.name.encode()[: _NAME_BYTES - len("_pkey")].decode(errors="ignore") + "_pkey"
    taken = connection.execute("select to_regclass(%s)", [sql.Identifier(schema, name).as_string()]).fetchone()
    named = sql.SQL("CONSTRAINT {} ").format(sql.Identifier(name)) if taken == (None,) else sql.SQL("")
    connection.execute(
        sql.SQL("ALTER TABLE {} ADD {}PRIMARY KEY USING INDEX {}").format(target, named, sql.Identifier(index))
    )
