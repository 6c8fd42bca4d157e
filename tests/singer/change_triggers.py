"""dbt's triggers on raw tables, for the tests of what they log: the tables, and what is in the log."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tests.singer.conftest import FULL_TABLE, INCREMENTAL
from tests.singer.roles import apply_roles, execute

if TYPE_CHECKING:
    import psycopg

    from tests.singer.conftest import Pipe

ORDERS = """
    create table orders (id int primary key, customer int, note varchar(10), updated_at timestamptz default now());
    insert into orders select n, n * 10, 'note ' || n, now() - interval '1 day' from generate_series(1, 4) n;
    create table heap (id int, customer int, updated_at timestamptz default now());
    insert into heap values (1, 10), (1, 10), (2, null);
"""
ONCE = {"public-orders": INCREMENTAL}
WHOLE = {"public-orders": FULL_TABLE, "public-heap": FULL_TABLE}
ANY_ROW = (None, None)
STAMP = "_tidemark_loaded_xid = pg_current_xact_id()"
TRIGGERS = """
    select tgname::text, tgenabled::text, pg_get_triggerdef(oid) from pg_trigger
    where tgrelid = 'raw.orders'::regclass and not tgisinternal order by 1
"""


def tracked_pipe(pipe: Pipe, password: str, streams: dict[str, Any]) -> Pipe:
    """Make it a pipe into a loaded warehouse with the roles, and with triggers on raw.orders and raw.heap."""
    apply_roles(pipe)
    pipe.target |= {"user": "tidemark_loader", "password": password}
    pipe.do(ORDERS)
    pipe.state = pipe.sync(streams).ok().state
    for table in (name.replace("public-", "raw.") for name in streams):
        track(pipe, table)
    return pipe


def track(pipe: Pipe, table: str = "raw.orders", columns: str = "{id, customer}") -> None:
    """Create the triggers as dbt does, which has no rights on raw but to read."""
    execute(
        pipe,
        "set session authorization tidemark_transformer; "
        f"select tidemark.track_changes('{table}', '{columns}', interval '7 days')",
    )


def found(connection: psycopg.Connection[Any], table: str = "orders") -> list[tuple[Any, Any]]:
    """Return the old and the new values of each logged change, as dbt reads them."""
    query = "select old, new from raw._tidemark_changes where model = %s order by old, new"
    connection.execute("set role tidemark_transformer")
    changes = connection.execute(query, [table]).fetchall()
    connection.execute("reset role")
    return changes


def logged(pipe: Pipe, table: str = "orders") -> list[tuple[Any, Any]]:
    """Return the logged changes, and forget them."""
    with pipe.warehouse() as connection:
        changes = found(connection, table)
        connection.execute("delete from raw._tidemark_changes")
    return changes


def row(number: int, customer: int | None = None) -> dict[str, Any]:
    return {"id": number, "customer": number * 10 if customer is None else customer}
