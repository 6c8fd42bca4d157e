"""About how much a run loads of each stream: from the history, or else from the table's size in the source."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from psycopg import sql

from singer_postgres.core.warehouse import run_history

if TYPE_CHECKING:
    from collections.abc import Iterable

    import psycopg

    from tidemark.inspect.check.streams import Stream

    Connection = psycopg.Connection[Any]

# A stream without any row costs a run some 50 ms, in which another one is read with 40 MB/s.
LEAST_BYTES = 2 * 2**20
_RUNS = 5
# the median, which one large load does not change
_LOADED = """
    select stream, percentile_disc(0.5) within group (order by bytes)
    from (
        select stream, bytes, row_number() over (partition by stream order by started_at desc) as back
        from {} where source = {} and outcome = 'succeeded'
    ) runs where back <= {} group by stream
"""
# pg_table_size would wait for a session that alters a table, and so would pg_partition_tree. Of such a table, the size
# at the last VACUUM or ANALYZE will do.
_TABLES = """
    with recursive leaf(root, oid) as (
        select oid, oid from unnest(%s::bigint[]::oid[]) of(oid)
        union all
        select root, inhrelid from leaf
        join pg_catalog.pg_inherits on inhparent = leaf.oid
        join pg_catalog.pg_class child on child.oid = inhrelid and child.relispartition
    ), altered as materialized (
        select relation from pg_catalog.pg_locks
        where mode = 'AccessExclusiveLock'
            and database = (select oid from pg_catalog.pg_database where datname = current_database())
    )
    select root::bigint, sum(case
        when oid in (select relation from altered)
        then greatest(relpages, 0) * pg_catalog.current_setting('block_size')::bigint
        else pg_catalog.pg_table_size(oid)
    end)
    from leaf join pg_catalog.pg_class using (oid) group by root
"""


def of_tables(source: Connection, streams: Iterable[Stream]) -> dict[str, int]:
    """Return the size of each stream's table in the source, with its partitions. This waits for no lock."""
    oids = {stream.relation.oid: stream.name for stream in streams}
    return {oids[oid]: int(size or 0) for oid, size in source.execute(_TABLES, [list(oids)]).fetchall()}


def of_runs(warehouse: Connection, schema: str, source_id: str) -> dict[str, int]:
    """Return what the last runs loaded of each stream, as far as the history has some."""
    name = sql.Identifier(schema, run_history.TABLE.name)
    row = warehouse.execute("select to_regclass(%s)", [name.as_string()]).fetchone()
    if not row or row[0] is None:
        return {}
    query = sql.SQL(_LOADED).format(name, sql.Literal(source_id), sql.Literal(_RUNS))
    return {stream: int(size) for stream, size in warehouse.execute(query).fetchall()}
