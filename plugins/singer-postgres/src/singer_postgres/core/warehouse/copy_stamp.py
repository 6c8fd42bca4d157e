"""Gives rows that are copied straight into a table their metadata, without sending it with each row.

The metadata columns get defaults. Those of one snapshot or one run come from the transaction's settings, by functions
that are declared immutable. So COPY asks for each value once, when it plans, and rows of several snapshots can be
copied into one table at once. A value that is asked for with each row costs a tenth of the load.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from singer_postgres.core.sql_compat import sql
from singer_postgres.core.warehouse.metadata_columns import METADATA

if TYPE_CHECKING:
    from collections.abc import Mapping

    import psycopg

    from singer_postgres.core.warehouse.metadata_columns import Stamp

    Connection = psycopg.Connection[Any]

_PREFIX = "_tidemark_copied_"
# the metadata columns whose values are settings, with their types
_SET = {name: METADATA[f"_sdc_{name}"][0] for name in ("extracted_at", "sequence", "sync_started_at")}


def ensure(connection: Connection, schema: str) -> None:
    """Create the functions in `schema` that read the settings."""
    found = connection.execute(
        "select count(*) from pg_catalog.pg_proc where pronamespace = to_regnamespace(%s) and starts_with(proname, %s)",
        [sql.Identifier(schema).as_string(), _PREFIX],
    ).fetchone()
    if found == (len(_SET),):
        return
    with connection.transaction():
        # two sessions that create a function at once would fail
        connection.execute("select pg_advisory_xact_lock(hashtextextended(%s, 0))", [f"{schema}.{_PREFIX}"])
        for name, type_ in _SET.items():
            connection.execute(
                sql.SQL(
                    "CREATE OR REPLACE FUNCTION {}() RETURNS {} LANGUAGE sql IMMUTABLE "
                    "AS $$ SELECT nullif(pg_catalog.current_setting({}, true), '')::{} $$"
                ).format(_function(schema, name), sql.SQL(type_), sql.Literal(f"tidemark.{name}"), sql.SQL(type_))
            )


def drop(connection: Connection, schema: str) -> None:
    """Drop the functions. No table of the schema may have the defaults any more."""
    for name in _SET:
        connection.execute(sql.SQL("DROP FUNCTION IF EXISTS {}()").format(_function(schema, name)))


def defaults(schema: str) -> Mapping[str, sql.Composable]:
    """Return the default of each metadata column that has one."""
    values = {f"_sdc_{name}": _function(schema, name) + sql.SQL("()") for name in _SET}
    return {
        name: values.get(name, sql.SQL(expression))
        for name, (_, expression) in METADATA.items()
        if not expression.startswith("NULL")
    }


def are_set(defaults: Mapping[str, str]) -> bool:
    """Return whether a table has these defaults, given its own as text."""
    return all(_PREFIX in defaults.get(f"_sdc_{name}", "") for name in _SET)


def set_for_transaction(connection: Connection, stamp: Stamp) -> None:
    """Set the values that the rows copied in this transaction get."""
    connection.execute(
        "SELECT " + ", ".join(f"set_config('tidemark.{name}', %s, true)" for name in _SET),
        [str(getattr(stamp, name)) for name in _SET],
    )


def _function(schema: str, name: str) -> sql.Identifier:
    return sql.Identifier(schema, f"{_PREFIX}{name}")
