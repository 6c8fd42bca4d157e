"""Refuses to mix the rows of two databases in one table."""

from __future__ import annotations

from typing import TYPE_CHECKING

from singer_postgres.core.errors import OtherSourceError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from singer_postgres.core.wire import Table


def refuse_other_rights(schema: str, stream: str, table: Table, others: Iterable[tuple[str, str]]) -> None:
    """Refuse what may be the same database, identified once by its system identifier and once by its name."""
    now, _, oid = table.source.rpartition("/")
    for source, other in others:
        was, _, its_oid = source.rpartition("/")
        if other != stream or oid != its_oid or was.isdigit() == now.isdigit():
            continue
        again = moved(schema, now=table.source, was=source)
        if was.isdigit():
            msg = (
                f"{stream} was loaded by a role that may execute pg_control_system(), which identifies the database, "
                "and the tap's role may not: in the source, GRANT EXECUTE ON FUNCTION "
                f"pg_catalog.pg_control_system() TO it. To identify it by its name ({now}) instead: {again}"
            )
        else:
            msg = (
                f"{stream} was loaded from {source}, identified by its name, because the tap's role could not execute "
                f"pg_control_system() then. Now it can: if this is the same database, run in the warehouse: {again}"
            )
        raise OtherSourceError(msg)


def moved(schema: str, *, now: str, was: str) -> str:
    """Return the statement by which the warehouse knows a database again that moved to another server."""
    return f"UPDATE {schema}._tidemark_state SET source = '{now}' WHERE source = '{was}';"  # noqa: S608


def refuse_others(schema: str, stream: str, table: Table, others: Iterable[tuple[str, str]]) -> None:
    """Refuse to mix rows that could not be told apart later."""
    for source, other in others:
        name = f"{schema}.{table.name}"
        if other != stream:
            msg = (
                f"{name} holds the rows of {other}, and {stream} would go into the same table. "
                "Unset the target's default_target_schema to keep the source's schemas apart."
            )
        else:
            again = moved(schema, now=table.source, was=source)
            msg = (
                f"{name} holds the rows of another database ({source}; this one is {table.source}), and the two "
                f"would mix. Load this one into a schema or warehouse of its own. If it is the same and moved: {again}"
            )
        raise OtherSourceError(msg)
