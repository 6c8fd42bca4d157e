"""How large the tables of streams are, and the histories of their changes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from psycopg import sql

from singer_postgres.core.warehouse import state_table
from tidemark.metrics import catalogue

if TYPE_CHECKING:
    from collections.abc import Collection

    import psycopg

    from tidemark.metrics.samples import Samples

# From pg_class alone: a function that looks at the files would wait for a table that is being altered.
_SIZES = """
    with roots as (
        select named.source, named.stream, kind, pg_class.oid
        from (select distinct source, stream, table_name from {states}) named
        cross join lateral (values ('rows', table_name), ('changes', table_name || '_changes')) as tables (kind, name)
        join pg_catalog.pg_class
            on relname = name and relkind in ('r', 'p') and relnamespace = to_regnamespace({schema})
        where kind = 'rows' or exists (
            select from pg_catalog.pg_attribute where attrelid = pg_class.oid and attname = '_tidemark_operation'
        )
    ), heaps as (
        select source, stream, kind, oid from roots
        union all
        select source, stream, kind, inhrelid from roots join pg_catalog.pg_inherits on inhparent = oid
    ), relations as (
        select heaps.* from heaps
        union all
        select source, stream, kind, reltoastrelid from heaps join pg_catalog.pg_class using (oid)
        union all
        select source, stream, kind, indexrelid from heaps join pg_catalog.pg_index on indrelid = heaps.oid
    )
    select source, stream, kind, sum(relpages::bigint) * current_setting('block_size')::int as bytes
    from relations join pg_catalog.pg_class using (oid) group by 1, 2, 3
"""


def collect(
    connection: psycopg.Connection[dict[str, Any]],
    schema: str,
    streams: Collection[tuple[str, str]],
    samples: Samples,
) -> None:
    """Add the sizes of streams.

    Args:
        streams: each with the database that it last came from.
    """
    if not streams:
        return
    query = sql.SQL(_SIZES).format(
        states=sql.Identifier(schema, state_table.TABLE.name),
        schema=sql.Literal(sql.Identifier(schema).as_string()),
    )
    for row in connection.execute(query).fetchall():
        if (row["source"], row["stream"]) in streams:
            samples.add(catalogue.STREAM_SIZE, row["bytes"], schema, row["stream"], row["kind"])
