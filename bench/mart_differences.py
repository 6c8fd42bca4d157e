"""Compares the marts of two builders row by row."""

from __future__ import annotations

from typing import TYPE_CHECKING

from psycopg import sql

if TYPE_CHECKING:
    from tests.integration.checkout import Checkout

# when a row was loaded last is no part of its meaning, and each project may define it for itself
_LEFT_OUT = ["loaded_at"]
_COLUMNS = """
    select attname from pg_attribute
    where attrelid = %(ours)s::regclass and attnum > 0 and not attisdropped and attname <> all(%(left_out)s)
        and attname in (
            select attname from pg_attribute where attrelid = %(theirs)s::regclass and attnum > 0 and not attisdropped
        )
    order by attnum
"""
# one pass for `except` in both directions
_DIFFERENCES = """
    select count(*) filter (where side > 0), count(*) filter (where side < 0)
    from (
        select sum(side) as side
        from (select {columns}, 1 as side from {ours} union all select {columns}, -1 from {theirs}) as both_sides
        group by {columns}
    ) as counted
    where side <> 0
"""


def differences(checkout: Checkout, model: str, ours: str, theirs: str) -> tuple[int, int]:
    """Return how many rows of the model are only in one schema, and how many only in the other.

    Args:
        ours: a schema.
        theirs: another schema. Columns that only one of the two tables has are not compared.
    """
    with checkout.connect("warehouse") as connection:
        names = {"ours": f"{ours}.{model}", "theirs": f"{theirs}.{model}"}
        columns = [name for (name,) in connection.execute(_COLUMNS, {**names, "left_out": _LEFT_OUT}).fetchall()]
        connection.execute("set work_mem = '512MB'")
        query = sql.SQL(_DIFFERENCES).format(
            columns=sql.SQL(", ").join(map(sql.Identifier, columns)),
            ours=sql.Identifier(ours, model),
            theirs=sql.Identifier(theirs, model),
        )
        row = connection.execute(query).fetchone()
    assert row
    return row[0], row[1]
