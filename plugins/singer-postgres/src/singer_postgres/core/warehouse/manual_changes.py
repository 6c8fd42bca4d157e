"""Detects changes that somebody made by hand to a stream's table, where they keep rows from being loaded unchanged."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from singer_postgres.core.errors import RowsHiddenError, WarehouseAlteredError
from singer_postgres.core.sql_compat import errors, sql
from singer_postgres.core.warehouse import change_triggers
from singer_postgres.core.warehouse.schema_changes import keep_apart

if TYPE_CHECKING:
    from collections.abc import Sequence

    import psycopg

    from singer_postgres.core.wire import Table

    Connection = psycopg.Connection[Any]

_TABLE = """
    select relkind::text, pg_catalog.row_security_active(oid), pg_catalog.pg_has_role(relowner, 'usage'),
        (select min(rulename::text) from pg_catalog.pg_rewrite where ev_class = c.oid and rulename <> '_RETURN'),
        case when relispartition then (
            select inhparent::regclass::text from pg_catalog.pg_inherits where inhrelid = c.oid
        ) end
    from pg_catalog.pg_class c where oid = to_regclass(%s)
"""
_TRIGGERS = f"""
    select tgname::text from pg_catalog.pg_trigger
    where tgrelid = to_regclass(%s) and not tgisinternal and tgenabled in ('O', 'A') and not {change_triggers.IS_OURS}
    order by tgname
"""  # noqa: S608 - fixed text
_KINDS = {"v": "a view", "m": "a materialized view", "f": "a foreign table", "S": "a sequence", "c": "a type"}
_WORDS = {"v": "VIEW", "m": "MATERIALIZED VIEW", "f": "FOREIGN TABLE", "S": "SEQUENCE", "c": "TYPE"}


def refuse(connection: Connection, schema: str, table: str) -> None:
    """Refuse a table that can't take rows unchanged.

    Raises:
        SingerPostgresError: the relation is not a table of its own, or has a rule or row-level security.
    """
    name = sql.Identifier(schema, table).as_string()
    row = connection.execute(_TABLE, [name]).fetchone()
    if row is None:
        return
    kind, hides_rows, is_ours, rule, parent = row
    if kind in _KINDS:
        msg = (
            f"{schema}.{table} is {_KINDS[kind]}, and the stream's rows need a table of that name. Rename it: "
            f"ALTER {_WORDS[kind]} {name} RENAME TO …;"
        )
        raise WarehouseAlteredError(msg)
    if parent:
        msg = (
            f"{schema}.{table} is a partition of {parent}, and the stream's rows need a table of that name. Rename it: "
            f"ALTER TABLE {name} RENAME TO …;"
        )
        raise WarehouseAlteredError(msg)
    if rule:
        quoted = sql.Identifier(rule).as_string()
        msg = f"{schema}.{table} has a rule, {rule}, with which no row can be matched. DROP RULE {quoted} ON {name};"
        raise WarehouseAlteredError(msg)
    if hides_rows:
        fix = f"ALTER TABLE {name} NO FORCE ROW LEVEL SECURITY" if is_ours else "ALTER ROLE … BYPASSRLS"
        msg = f"Row-level security of {schema}.{table} applies to the role that loads it: rows would be missed. {fix};"
        raise RowsHiddenError(msg)


def triggers(connection: Connection, schema: str, table: str) -> list[str]:
    """Return the triggers of a table that could skip or alter rows. Those that log changes for dbt don't."""
    rows = connection.execute(_TRIGGERS, [sql.Identifier(schema, table).as_string()]).fetchall()
    return [name for (name,) in rows]


def triggered(schema: str, table: str, names: Sequence[str], *, stream: str, what: str) -> str:
    """Return the error for a table whose triggers skipped or altered rows."""
    return (
        f"Rows of {stream} were not {what}, because {schema}.{table} has a trigger of its own ({', '.join(names)}); "
        f"no row was loaded. ALTER TABLE {sql.Identifier(schema, table).as_string()} "
        f"DISABLE TRIGGER {sql.Identifier(names[0]).as_string()};"
    )


def primary_key(connection: Connection, schema: str, table: str) -> str | None:
    """Return the name of a table's primary key."""
    row = connection.execute(
        "select conname::text from pg_catalog.pg_constraint where conrelid = to_regclass(%s) and contype = 'p'",
        [sql.Identifier(schema, table).as_string()],
    ).fetchone()
    return str(row[0]) if row else None


def advice(error: BaseException, schema: str, table: str, *, stale_key: str | None = None) -> str:
    """Return advice for a violated constraint of the stream's table; empty for any other error.

    Args:
            stale_key: the table's primary key, if the stream no longer has a key.
    """
    if not isinstance(error, errors.IntegrityError) or (error.diag.schema_name, error.diag.table_name) != (
        schema,
        table,
    ):
        return ""
    name = sql.Identifier(schema, table).as_string()
    if isinstance(error, errors.NotNullViolation) and error.diag.column_name:
        column = sql.Identifier(error.diag.column_name).as_string()
        drop = f"DROP CONSTRAINT {sql.Identifier(stale_key).as_string()}, " if stale_key else ""
        return f". The source has such rows: ALTER TABLE {name} {drop}ALTER COLUMN {column} DROP NOT NULL"
    if error.diag.constraint_name:
        constraint = sql.Identifier(error.diag.constraint_name).as_string()
        if isinstance(error, errors.UniqueViolation):
            return (
                f". If it is not the stream's key: ALTER TABLE {name} DROP CONSTRAINT {constraint}, or drop that index"
            )
        return f". The source has such rows: ALTER TABLE {name} DROP CONSTRAINT {constraint}"
    return ""


def room(error: BaseException, schema: str, table: Table) -> str:
    """Return advice for rows or tables that are too wide here but not in the source; empty for any other error."""
    ours = "; in the source it fits, without the eight columns that the warehouse adds"
    if isinstance(error, errors.TooManyColumns):
        # dropped columns keep counting towards the limit until the table is created again
        return f"{ours}. Deselect columns; dropped columns count too. {keep_apart(schema, table)}"
        # other limits have the same SQLSTATE, and the message may be in another language
    if isinstance(error, errors.ProgramLimitExceeded) and error.diag.source_function == "RelationGetBufferForTuple":
        return f"{ours}. Deselect columns, or shorten the row in the source"
    return ""
