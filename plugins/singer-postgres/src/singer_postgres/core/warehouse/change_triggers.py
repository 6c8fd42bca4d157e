"""The triggers by which dbt's package `in_place` logs the changes of a raw table that its rows can't tell.

dbt creates them (`tidemark.track_changes`), and loads write through them. PostgreSQL refuses to change the type of a
column in a trigger's condition, and a trigger's arguments keep the old name of a renamed column. So changes of a
table's columns set the triggers aside. If they stay away, dbt's next build creates them again and computes all rows of
the models above.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from singer_postgres.core.sql_compat import sql

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    import psycopg

    Connection = psycopg.Connection[Any]

IS_OURS = """(
    starts_with(tgname::text, '_tidemark_logs_')
    and tgfoid in (select oid from pg_catalog.pg_proc where starts_with(proname::text, '_tidemark_log_'))
)"""
# the triggers of a table, if one of them has a column of these as an argument; names are encoded as PostgreSQL does
_USING = f"""
    select tgname::text, pg_catalog.pg_get_triggerdef(oid), tgenabled::text
    from pg_catalog.pg_trigger
    where tgrelid = %(table)s::regclass and {IS_OURS} and exists (
        select from pg_catalog.pg_trigger, unnest(%(columns)s::text[]) as name
        where tgrelid = %(table)s::regclass and {IS_OURS}
            and pg_catalog.encode(pg_catalog.convert_to(name, pg_catalog.getdatabaseencoding()), 'escape')
                = any(string_to_array(
                    pg_catalog.encode(tgargs, 'escape'), pg_catalog.concat(pg_catalog.chr(92), '000')
                ))
    )
    order by tgname
"""  # noqa: S608 - fixed text


def set_aside(connection: Connection, table: sql.Identifier, columns: Collection[str]) -> list[str] | None:
    """Drop the triggers of a table if they use one of these columns.

    Runs in the caller's transaction, which holds the table's lock from then on. So no change is lost before the
    triggers are created again.

    Returns:
        The statements that create them again; None if they use none of the columns. Empty if somebody had disabled a
        trigger: then the log is incomplete, and dbt must find it so.
    """
    parameters = {"table": table.as_string(connection), "columns": list(columns)}
    found = connection.execute(_USING, parameters).fetchall()
    for name, _, _ in found:
        connection.execute(sql.SQL("DROP TRIGGER {} ON {}").format(sql.Identifier(name), table))
    if not found:
        return None
    # A also fires in sessions with session_replication_role = replica; releases before 1.0 created them with O
    if any(enabled not in "OA" for _, _, enabled in found):
        return []
    always = [name for name, _, enabled in found if enabled == "A"]
    return [definition for _, definition, _ in found] + [
        sql.SQL("ALTER TABLE {} ENABLE ALWAYS TRIGGER {}").format(table, sql.Identifier(name)).as_string(connection)
        for name in always
    ]


def create(connection: Connection, definitions: Iterable[str]) -> None:
    """Create triggers again that `set_aside` dropped."""
    for definition in definitions:
        connection.execute(sql.SQL(definition))
