"""Advice on large raw tables: what autovacuum does with them, their WAL, their partitions. Small ones need none."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from psycopg import sql

from singer_postgres.core.errors import SettingInvalidError
from singer_postgres.core.source.masks import AS_TEXT
from singer_postgres.core.warehouse import partitions
from tidemark.inspect.check.finding import Finding, Level, statement
from tidemark.inspect.tables import printed_size

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    import psycopg

    from tidemark.inspect.check.streams import Stream

# A vacuum of less takes seconds, whatever the settings are.
_LARGE_BYTES = 2**30
# So many dead rows take about 100 MB here, and a vacuum of them some seconds.
_MANY_DEAD = 1_000_000
# With fewer, a query reads few pages in vain.
_DEAD_SHARE = 0.2
# Autovacuum should not wait for more: a query would read as many dead rows, and the vacuum would take minutes.
_LONG_WAIT_ROWS = 10_000_000
# of autovacuum_freeze_max_age: from there on a vacuum that reads all pages is days or hours away
_FREEZE_SHARE = 0.8
_SCALE_FACTOR = "0.01"

# the tables of streams, or their partitions, with what autovacuum knows of them and the settings that hold for each
_TABLES = """
    with roots as (
        select oid, relname from pg_catalog.pg_class
        where relnamespace = to_regnamespace(%(schema)s) and relname = any(%(names)s) and relkind in ('r', 'p')
    ), leaves as (
        select roots.relname as root, coalesce(tree.relid, roots.oid)::oid as oid
        from roots left join lateral pg_catalog.pg_partition_tree(roots.oid) tree on true
        where tree.relid is null or tree.isleaf
    )
    select root, c.relname, pg_catalog.pg_table_size(c.oid), greatest(c.reltuples, 0),
        coalesce(s.n_dead_tup, 0), coalesce(s.n_live_tup, 0), coalesce(s.n_ins_since_vacuum, 0),
        pg_catalog.age(c.relfrozenxid),
        coalesce((
            select jsonb_object_agg(option_name, option_value) from pg_catalog.pg_options_to_table(c.reloptions)
        ), '{}'),
        coalesce(pg_catalog.pg_get_expr(c.relpartbound, c.oid) = 'DEFAULT', false)
    from leaves join pg_catalog.pg_class c on c.oid = leaves.oid
    left join pg_catalog.pg_stat_all_tables s on s.relid = c.oid
    order by 1, 2
"""
_SETTINGS = "select name, setting from pg_catalog.pg_settings where name like 'autovacuum%'"
_COMPRESSION = "select setting, 'lz4' = any(enumvals) from pg_catalog.pg_settings where name = 'wal_compression'"


@dataclass(frozen=True)
class LargeTable:
    """A raw table, or one of its partitions.

    Attributes:
        root: the stream's table.
        rows: by its last ANALYZE.
        dead, live, inserted: rows by the statistics: dead, live, and inserted since the last vacuum.
        frozen_age: transactions since the oldest one that its rows may name.
        options: its own storage parameters.
    """

    root: str
    name: str
    bytes: int
    rows: float = 0
    dead: int = 0
    live: int = 0
    inserted: int = 0
    frozen_age: int = 0
    options: Mapping[str, str] = field(default_factory=dict)
    is_default: bool = False

    def threshold(self, kind: str, settings: Mapping[str, str]) -> float:
        """Return after how many rows autovacuum vacuums it: `vacuum` for dead rows, `vacuum_insert` for new ones."""
        base, factor = (float(self._setting(f"autovacuum_{kind}_{each}", settings)) for each in _PARTS)
        most = float(settings.get(f"autovacuum_{kind}_max_threshold", -1))
        wanted = base + factor * self.rows
        return wanted if most < 0 else min(wanted, most)

    def freeze_max_age(self, settings: Mapping[str, str]) -> float:
        """Return the age from which autovacuum reads the whole table."""
        own = self.options.get("autovacuum_freeze_max_age", settings["autovacuum_freeze_max_age"])
        return min(float(own), float(settings["autovacuum_freeze_max_age"]))

    def _setting(self, name: str, settings: Mapping[str, str]) -> str:
        return self.options.get(name, settings[name])


_PARTS = ("threshold", "scale_factor")


def read(
    connection: psycopg.Connection[Any],
    schema: str,
    streams: Sequence[Stream],
    wanted: Mapping[str, Any],
    masks: Mapping[str, Mapping[str, str]],
) -> Iterator[Finding]:
    """Query the warehouse, and yield the advice, and what the target refuses of `raw_partitions`.

    Args:
        wanted: the target's `raw_partitions`.
        masks: by stream and column.
    """
    by_table = {stream.relation.name: stream.name for stream in streams}
    found = [
        LargeTable(*row)
        for row in connection.execute(_TABLES, {"schema": sql.Identifier(schema).as_string(), "names": list(by_table)})
    ]
    settings = dict(connection.execute(_SETTINGS).fetchall())
    for table in found:
        for finding in vacuum(table, schema, settings):
            yield _of(finding, by_table[table.root])
    row = connection.execute(_COMPRESSION).fetchone()
    assert row
    if any(table.bytes >= _LARGE_BYTES for table in found):
        yield from compression(*row)
    are_plain = {each.name for each in found if each.root == each.name}
    for stream in streams:
        name, setting = stream.relation.name, wanted.get(stream.name)
        if setting is None:
            continue
        there = partitions.find(connection, schema, name)
        why = refused(stream, setting, masks.get(stream.name) or {})
        is_there = there is not None or name in are_plain
        if why and not is_there:
            yield Finding("warehouse", Level.error, why, stream=stream.name)
        elif why:
            what = f"{why}. {schema}.{name} is there already and stays as it is; a new table would be refused"
            yield Finding("warehouse", Level.note, what, stream=stream.name)
        elif is_there and not (there and there.is_as(setting, stream.row_key)):
            yield _of(stays(schema, name, stream.name, there), stream.name)


def _of(finding: Finding, stream: str) -> Finding:
    return Finding(finding.side, finding.level, finding.what, finding.fix, stream)


def vacuum(table: LargeTable, schema: str, settings: Mapping[str, str]) -> Iterator[Finding]:
    """Yield what autovacuum does too late, or too rarely, with a table."""
    name = (schema, table.name)
    if table.is_default and table.rows:
        what = (
            f"{schema}.{table.name} is a default partition with about {table.rows:,.0f} rows, and {table.root} gets no "
            "ranges any more: a query on one range reads them too"
        )
        yield Finding("warehouse", Level.note, what)
    if table.bytes < _LARGE_BYTES:
        return
    size = printed_size(table.bytes)
    dead_share = table.dead / max(table.dead + table.live, 1)
    waits = table.threshold("vacuum", settings)
    if table.dead >= _MANY_DEAD and (dead_share >= _DEAD_SHARE or waits >= _LONG_WAIT_ROWS):
        what = f"{schema}.{table.name} ({size}) has {table.dead:,} dead rows, {dead_share:.0%} of all"
        fix = [statement("VACUUM {table}", table=name)] if dead_share >= _DEAD_SHARE else []
        if waits >= _LONG_WAIT_ROWS:
            what += f", and autovacuum waits for {waits:,.0f}"
            fix.append(_set(name, "autovacuum_vacuum_scale_factor"))
        yield Finding("warehouse", Level.warning, what, tuple(fix))
    waits = table.threshold("vacuum_insert", settings)
    if table.inserted >= _MANY_DEAD and waits >= _LONG_WAIT_ROWS:
        what = (
            f"{schema}.{table.name} ({size}) has {table.inserted:,} rows that were inserted since its last vacuum, and "
            f"autovacuum waits for {waits:,.0f}: until then index-only scans read the table, and one vacuum gets it all"
        )
        yield Finding("warehouse", Level.note, what, (_set(name, "autovacuum_vacuum_insert_scale_factor"),))
    most = table.freeze_max_age(settings)
    if table.frozen_age >= _FREEZE_SHARE * most:
        what = (
            f"{schema}.{table.name} ({size}) has rows that are {table.frozen_age:,} transactions old: at {most:,.0f} "
            "(autovacuum_freeze_max_age), autovacuum reads all of it, at any time of the day, and does not give way"
        )
        yield Finding("warehouse", Level.warning, what, (statement("VACUUM (FREEZE) {table}", table=name),))
    if float(table.options.get("fillfactor", 100)) < 100:  # noqa: PLR2004 - percent
        what = (
            f"{schema}.{table.name} ({size}) has fillfactor {table.options['fillfactor']}, which leaves room on its "
            "pages for HOT updates. No update of it is one: each sets _tidemark_loaded_xid, which is indexed"
        )
        yield Finding("warehouse", Level.note, what, (statement("ALTER TABLE {table} RESET (fillfactor)", table=name),))


def compression(method: str, lz4: bool) -> Iterator[Finding]:  # noqa: FBT001 - a row of the query
    """Yield the note on a method of `wal_compression` that slows merges of changed rows down.

    Args:
        lz4: whether the server was built with it.
    """
    if method not in ("on", "pglz"):
        return
    what = (
        "wal_compression is pglz. Changed rows that are spread over a large table have PostgreSQL write most of its "
        "pages to the WAL, and pglz takes several times as much processor time for that as the update itself; "
    ) + ("lz4 makes them as small in a fraction of it" if lz4 else "this server was built without lz4")
    fix = f"ALTER SYSTEM SET wal_compression = {'lz4' if lz4 else 'off'}"
    yield Finding("warehouse", Level.note, what, (fix, "SELECT pg_reload_conf()"))


def refused(stream: Stream, setting: Mapping[str, Any], masks: Mapping[str, str]) -> str | None:
    """Return why a stream's table could not be made as `raw_partitions` says; None if it could."""
    types = {
        name: "text" if masks.get(name) in AS_TEXT else column.target_type.type or "text"
        for name, column in stream.relation.columns.items()
    }
    if not set(stream.row_key) <= types.keys():
        # another finding is about the key
        return None
    try:
        partitions.wanted(setting, ".".join(stream.relation.path), stream.row_key, types)
    except SettingInvalidError as error:
        return str(error).rstrip(".")
    return None


def _set(name: tuple[str, str], option: str) -> str:
    return f"{statement('ALTER TABLE {table} SET', table=name)} ({option} = {_SCALE_FACTOR})"


def stays(schema: str, table: str, stream: str, there: partitions.Partitions | None) -> Finding:
    """Return the note on a table that is to be partitioned otherwise: what is there is never converted by a run.

    Args:
        there: how it is partitioned; None for a plain table.
    """
    how = there or "a plain one"
    what = (
        f"{partitions.SETTING} names {stream}, whose table {schema}.{table} is there already and stays {how}. To "
        "partition it as the setting says, rename it and have all rows loaded again: "
        f"`tidemark state rewind {stream} --to beginning`"
    )
    fix = statement("ALTER TABLE {table} RENAME TO {new}", table=(schema, table), new=f"{table}_before")
    return Finding("warehouse", Level.note, what, (fix,))
