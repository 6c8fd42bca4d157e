"""Keeps the cost of a merge apart from the size of its table."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from singer_postgres.core.sql_compat import sql

if TYPE_CHECKING:
    from collections.abc import Iterator

    import psycopg

# A scan reads about so many rows in the time of one look-up; from there on, a look-up reads less, too.
# Of partitions, the catalog's sizes: to ask for the real ones would lock all of them until the transaction ends.
_LARGER = 20
_LOOK_UP = """
    SELECT name, pg_catalog.current_setting(name), pg_catalog.set_config(name, 'off', true)
    FROM unnest(ARRAY['enable_hashjoin', 'enable_mergejoin', 'jit']) name
    WHERE coalesce(
        (
            SELECT sum(greatest(c.relpages, 0)) * pg_catalog.current_setting('block_size')::bigint
            FROM pg_catalog.pg_inherits i JOIN pg_catalog.pg_class c ON c.oid = i.inhrelid
            WHERE i.inhparent = {target}::regclass
        ),
        pg_catalog.pg_relation_size({target}::regclass)
    ) > {larger} * pg_catalog.pg_relation_size({stage}::regclass)
"""


@contextmanager
def rows_looked_up(
    connection: psycopg.Connection[Any], stage: sql.Composable, target: sql.Composable
) -> Iterator[None]:
    """Have statements of a transaction look up the staged rows by key, if the table is much larger than the stage.

    PostgreSQL expects each page that it looks up to be read from the disk, at four times the cost of one that a scan
    reads, and so joins a few hundred thousand rows by a scan of the whole table. The hash of so many rows does not fit
    into work_mem, either, and the scanned rows are written to temporary files. This is only for statements that join on
    the key: others would compare all rows with all.
    """
    named = {name: sql.Literal(each.as_string(connection)) for name, each in (("stage", stage), ("target", target))}
    before = connection.execute(sql.SQL(_LOOK_UP).format(larger=sql.Literal(_LARGER), **named)).fetchall()
    yield
    for name, value, _ in before:
        connection.execute("SELECT pg_catalog.set_config(%s, %s, true)", [name, value])
