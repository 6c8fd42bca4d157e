"""Fills the demo shop and makes changes in it, with the SQL files in the project's demo/shop/sql/."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

import psycopg
from psycopg import errors, sql

from tidemark.errors import TidemarkError, UsageError
from tidemark.project import database_settings
from tidemark.project.connections import connect

if TYPE_CHECKING:
    from pathlib import Path

    from tidemark.project.database_settings import DatabaseSettings
    from tidemark.project.directory import Project

_SCRIPTS = ("1_tables.sql", "2_rows.sql", "3_constraints.sql")
# a comment in the database says what was loaded, so that a repeated load can be told from a different one
_MARK = re.compile(r"^Tidemark demo shop, scale (?P<scale>\S+), until (?P<as_of>.+)$")


@dataclass(frozen=True)
class Shop:
    """The demo shop in a database: its scale, and the end of its three years."""

    scale: str
    as_of: datetime


def loaded(connection: psycopg.Connection[Any]) -> Shop | None:
    """Return the demo shop in this database; None if there is none."""
    row = connection.execute("select obj_description('public'::regnamespace)").fetchone()
    found = _MARK.match((row and row[0]) or "")
    return Shop(found["scale"], datetime.fromisoformat(found["as_of"])) if found else None


def tables(connection: psycopg.Connection[Any]) -> list[str]:
    """Return the names of all tables in the public schema."""
    rows = connection.execute(
        "select relname from pg_class where relnamespace = 'public'::regnamespace and relkind = 'r'"
    )
    return sorted(name for (name,) in rows)


def load(project: Project, source: DatabaseSettings, *, scale: float, as_of: datetime | None = None) -> bool:
    """Fill the source with the shop in one transaction. Return False if the same shop was already there.

    Args:
        scale: 1 means 100,000 customers, 10,000 products, 500,000 orders, about 1,250,000 order items.
        as_of: the end of the three years that the timestamps cover; by default, today's midnight in UTC.

    Raises:
        UsageError: the database holds something else.
        TidemarkError: the server failed, for example because its disk is full; nothing has changed.
    """
    with connect(database_settings.admin(project, source)) as connection, connection.transaction():
        # otherwise two loads at once could both find the database empty
        connection.execute("select pg_advisory_xact_lock(hashtext('tidemark demo'))")
        wanted, found = f"{scale:g}", loaded(connection)
        if found is not None:
            if found.scale == wanted and as_of in {None, found.as_of}:
                return False
            # a replacement would leave the old rows in the warehouse, and bookmarks past the new ones
            raise UsageError(
                f"The {source} holds the demo shop at scale {found.scale} until {found.as_of:%Y-%m-%d}; for another, "
                "delete this one with `tidemark reset`, then run this again."
            )
        if others := tables(connection):
            raise UsageError(
                f"The {source} holds tables that are not the demo's ({', '.join(others[:3])}…); "
                "name an empty database in TAP_POSTGRES_DATABASE."
            )
        _set(connection, "demo.scale", wanted)
        end = as_of or _midnight(connection)
        _set(connection, "demo.as_of", end.isoformat())
        for script in _SCRIPTS:
            _execute(connection, project.demo / script)
        mark = f"Tidemark demo shop, scale {wanted}, until {end.isoformat()}"
        connection.execute(sql.SQL("comment on schema public is {}").format(sql.Literal(mark)))
    return True


def change(
    project: Project, source: DatabaseSettings, *, rows: int, seed: int | None = None
) -> list[tuple[str, str, int]]:
    """Make a day's traffic with about `rows` changed rows. Return (table, change, rows) for each kind of change.

    Args:
        seed: the same seed makes the same traffic in the same shop.

    Raises:
        UsageError: the database holds no demo shop.
    """
    with connect(database_settings.admin(project, source)) as connection, connection.transaction():
        if loaded(connection) is None:
            raise UsageError(f"The {source} holds no demo shop; run `tidemark demo load` first.")
        _set(connection, "demo.rows", str(rows))
        if seed is not None:
            connection.execute("select setseed(%s)", [(seed % 1_000_003) / 1_000_003])
        return _execute(connection, project.demo / "change.sql").fetchall()


def _set(connection: psycopg.Connection[Any], name: str, value: str) -> None:
    connection.execute("select set_config(%s, %s, true)", [name, value])


def _midnight(connection: psycopg.Connection[Any]) -> datetime:
    row = connection.execute("select date_trunc('day', now())").fetchone()
    assert row
    midnight: datetime = row[0]
    return midnight


def _execute(connection: psycopg.Connection[Any], script: Path) -> psycopg.Cursor[Any]:
    """Run all statements of `script`, and return a cursor at the rows of the last one."""
    if not script.is_file():
        raise UsageError(f"The demo's {script} is missing; restore it with git.")
    try:
        cursor = connection.execute(script.read_bytes())
    except errors.InsufficientPrivilege as error:
        raise TidemarkError(f"The source's role may not create the demo shop: {error.diag.message_primary}.") from error
    except errors.DiskFull as error:
        raise TidemarkError(
            f"The source server's disk is full ({error.diag.message_primary}); free some space and run this again. "
            "The shop is unchanged."
        ) from error
    while cursor.nextset():
        pass
    return cursor
