"""Databases and poolers: what postgres_exporter, pgbouncer_exporter and node_exporter say.

Names are those of postgres_exporter 0.17 with its default collectors, and of the pgbouncer_exporter of Prometheus'
community, 0.11. Debian's pgbouncer exporter is another program, with other names.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from monitoring.grafana.generate import board
from monitoring.grafana.generate.panels import BAD, GOOD, WARNING, column, columns, graph, limits, listing, states, tile
from monitoring.grafana.generate.queries import PROMETHEUS, now, over_time, rows

if TYPE_CHECKING:
    from grafana_foundation_sdk.cog.builder import Builder
    from grafana_foundation_sdk.models.dashboard import Dashboard, Panel

_HOUR = 3600
_SERVER = "{{database}} {{source}}"
_DATABASE = "{{database}} {{source}} {{datname}}"
# the label `database` is source, warehouse or airflow; a source also has the label `source`
_IN = 'job="postgres", database=~"$database"'
# PostgreSQL's own databases tell nothing
_OWN = f'{_IN}, datname!~"template.*|postgres"'
_BY_SERVER, _BY_DATABASE = "by (database, source)", "by (database, source, datname)"
_NO_DATABASE = "No database is scraped"
_NO_POOLER = "No PgBouncer is scraped"


def _per_second(metric: str, by: str = _BY_SERVER) -> str:
    return f"sum {by} (rate({metric}{{{_OWN}}}[$__rate_interval]))"


def _now() -> list[Builder[Panel]]:
    connections = f"sum {_BY_SERVER} (pg_stat_activity_count{{{_IN}}})"
    allowed = f"max {_BY_SERVER} (pg_settings_max_connections{{{_IN}}})"
    return [
        tile(
            "Databases down",
            now(f"count((pg_up{{{_IN}}} == 0) or (up{{{_IN}}} == 0)) or 0 * count(up{{{_IN}}})"),
            PROMETHEUS,
            about="Databases that do not answer their exporter, and exporters that do not answer Prometheus.",
            steps=limits((1, BAD)),
            mapped={0: ("None", GOOD)},
            none=_NO_DATABASE,
            missing=WARNING,
            link=board.runbook("unreachable"),
        ),
        tile(
            "Connections used",
            now(f"max({connections} / {allowed})"),
            PROMETHEUS,
            about="The fullest server: its connections, divided by max_connections.",
            unit="percentunit",
            steps=limits((0.8, WARNING), (0.95, BAD)),
            none=_NO_DATABASE,
        ),
        tile(
            "Longest transaction",
            now(f'max(pg_stat_activity_max_tx_duration{{{_IN}, state!="idle"}})'),
            PROMETHEUS,
            about="An open transaction in the source holds bookmarks back, and keeps dead tuples everywhere.",
            unit="s",
            steps=limits((_HOUR, WARNING)),
            none=_NO_DATABASE,
        ),
        tile(
            "Most dead tuples",
            now(
                f"max(pg_stat_user_tables_n_dead_tup{{{_IN}}} / (pg_stat_user_tables_n_dead_tup{{{_IN}}} + "
                f"pg_stat_user_tables_n_live_tup{{{_IN}}} > 10000))"
            ),
            PROMETHEUS,
            about="The share of dead tuples in the worst table with more than 10,000 tuples.",
            unit="percentunit",
            steps=limits((0.2, WARNING)),
            none="No large table",
        ),
        tile(
            "WAL kept for slots",
            now(f"max(pg_replication_slots_pg_wal_lsn_diff{{{_IN}}})"),
            PROMETHEUS,
            about="The most WAL that a replication slot makes a server keep.",
            unit="bytes",
            steps=limits((2**30, WARNING), (10 * 2**30, BAD)),
            none="No replication slot",
        ),
        tile(
            "Clients waiting",
            now("sum(pgbouncer_pools_client_waiting_connections)"),
            PROMETHEUS,
            about="Clients that wait for a connection of PgBouncer.",
            steps=limits((1, WARNING)),
            none=_NO_POOLER,
        ),
    ]


def _servers() -> list[Builder[Panel]]:
    written = [f"pg_stat_database_tup_{what}" for what in ("inserted", "updated", "deleted")]
    deadlocks = f"sum {_BY_SERVER} (increase(pg_stat_database_deadlocks{{{_OWN}}}[$__rate_interval]))"
    return [
        states(
            "Databases that answer",
            over_time(f"min {_BY_SERVER} (pg_up{{{_IN}}})", _SERVER),
            PROMETHEUS,
            {0: ("down", BAD), 1: ("up", GOOD)},
            about="Whether the exporter could connect.",
            none=_NO_DATABASE,
        ),
        graph(
            "Connections",
            [
                over_time(
                    f"sum by (database, source, state) (pg_stat_activity_count{{{_IN}}} > 0)",
                    f"{_SERVER} {{{{state}}}}",
                )
            ],
            PROMETHEUS,
            about="Sessions by state. `idle in transaction` for minutes is a client that forgot to commit.",
            unit="short",
            none=_NO_DATABASE,
            stacked=True,
        ),
        graph(
            "Longest transaction",
            [
                over_time(
                    f'max {_BY_DATABASE} (pg_stat_activity_max_tx_duration{{{_OWN}, state!="idle"}})',
                    _DATABASE,
                )
            ],
            PROMETHEUS,
            about="How long the oldest open transaction has been open. An alert fires above an hour.",
            unit="s",
            none=_NO_DATABASE,
            steps=((_HOUR, WARNING),),
        ),
        graph(
            "Transactions",
            [
                over_time(
                    f"{_per_second('pg_stat_database_xact_commit')} + {_per_second('pg_stat_database_xact_rollback')}",
                    _SERVER,
                )
            ],
            PROMETHEUS,
            about="Commits and rollbacks a second.",
            unit="ops",
            none=_NO_DATABASE,
        ),
        graph(
            "Rows written",
            [
                over_time(
                    " + ".join(_per_second(metric) for metric in written),
                    _SERVER,
                )
            ],
            PROMETHEUS,
            about="Rows that were inserted, updated and deleted, a second.",
            unit="rowsps",
            none=_NO_DATABASE,
        ),
        graph(
            "Blocks found in memory",
            [
                over_time(
                    f"{_per_second('pg_stat_database_blks_hit')} / ({_per_second('pg_stat_database_blks_hit')} + "
                    f"{_per_second('pg_stat_database_blks_read')} > 0)",
                    _SERVER,
                )
            ],
            PROMETHEUS,
            about="The share of blocks that were in shared_buffers. A first load lowers it for a while.",
            unit="percentunit",
            none="No block was read in this time range",
            maximum=1,
        ),
        graph(
            "Deadlocks",
            [over_time(deadlocks, _SERVER)],
            PROMETHEUS,
            about="Deadlocks that PostgreSQL ended.",
            unit="short",
            none=_NO_DATABASE,
            bars=True,
            span=8,
        ),
        graph(
            "Temporary files",
            [over_time(_per_second("pg_stat_database_temp_bytes"), _SERVER)],
            PROMETHEUS,
            about="What sorts and hashes wrote to disk, a second. Much of it: raise work_mem.",
            unit="Bps",
            none=_NO_DATABASE,
            span=8,
        ),
        graph(
            "Locks held",
            [over_time(f"sum by (database, source, mode) (pg_locks_count{{{_IN}}} > 0)", f"{_SERVER} {{{{mode}}}}")],
            PROMETHEUS,
            about="Locks by mode. AccessExclusiveLock makes every reader of a table wait.",
            unit="short",
            none="No lock in this time range",
            span=8,
        ),
    ]


def _room() -> list[Builder[Panel]]:
    dead = f"max by (database, source, datname, schemaname, relname) (pg_stat_user_tables_n_dead_tup{{{_IN}}})"
    disks = 'fstype!~"tmpfs|ramfs|squashfs|overlay"'
    free = f"node_filesystem_avail_bytes{{{disks}}} / node_filesystem_size_bytes{{{disks}}}"
    tables = listing(
        "Tables with most dead tuples",
        [rows(f"topk(20, {dead})")],
        PROMETHEUS,
        about="Autovacuum removes them, unless a transaction is older than they are.",
        none="No table is known",
        sort=("Dead tuples", True),
        span=12,
    )
    names = {
        "database": "Server",
        "source": "Source",
        "datname": "Database",
        "schemaname": "Schema",
        "relname": "Table",
        "Value": "Dead tuples",
    }
    return [
        graph(
            "Size of databases",
            [over_time(f"max {_BY_DATABASE} (pg_database_size_bytes{{{_OWN}}})", _DATABASE)],
            PROMETHEUS,
            about="Tables and indexes on disk.",
            unit="bytes",
            none=_NO_DATABASE,
        ),
        graph(
            "WAL on disk",
            [
                over_time(f"max {_BY_SERVER} (pg_wal_size_bytes{{{_IN}}})", _SERVER, "A"),
                over_time(
                    f"max by (database, source, slot_name) (pg_replication_slots_pg_wal_lsn_diff{{{_IN}}})",
                    f"kept for {{{{slot_name}}}} in {_SERVER}",
                    "B",
                ),
            ],
            PROMETHEUS,
            about="All WAL files of a server, and what replication slots make it keep.",
            unit="bytes",
            none=_NO_DATABASE,
        ),
        column(columns(tables, names), "Dead tuples", unit="short"),
        graph(
            "Free disk",
            [over_time(f"min by (instance, mountpoint) ({free})", "{{instance}} {{mountpoint}}")],
            PROMETHEUS,
            about="The share of each file system that is free, from node_exporter.",
            unit="percentunit",
            none="node_exporter is not scraped",
            steps=((0.1, BAD),),
            maximum=1,
        ),
    ]


def _poolers() -> list[Builder[Panel]]:
    pool = "{{database}} {{user}}"
    per_pool = "by (database, user)"
    return [
        graph(
            "Clients",
            [
                over_time(
                    f"sum {per_pool} (pgbouncer_pools_client_active_connections)",
                    f"{pool} served",
                    "A",
                ),
                over_time(
                    f"sum {per_pool} (pgbouncer_pools_client_waiting_connections)",
                    f"{pool} waiting",
                    "B",
                ),
            ],
            PROMETHEUS,
            about="Clients that have a connection, and those that wait for one.",
            unit="short",
            none=_NO_POOLER,
        ),
        graph(
            "Longest wait",
            [over_time(f"max {per_pool} (pgbouncer_pools_client_maxwait_seconds)", pool)],
            PROMETHEUS,
            about="How long the first client in the queue has waited. query_wait_timeout ends it.",
            unit="s",
            none=_NO_POOLER,
        ),
        graph(
            "Connections to servers",
            [
                over_time(f"sum {per_pool} (pgbouncer_pools_server_active_connections)", f"{pool} in use", "A"),
                over_time(f"sum {per_pool} (pgbouncer_pools_server_idle_connections)", f"{pool} idle", "B"),
            ],
            PROMETHEUS,
            about="A pool is full if those in use reach pool_size.",
            unit="short",
            none=_NO_POOLER,
        ),
        graph(
            "Queries",
            [
                over_time(
                    "sum by (database) (rate(pgbouncer_stats_totals_queries_pooled_total[$__rate_interval]))",
                    "{{database}}",
                )
            ],
            PROMETHEUS,
            about="Queries a second.",
            unit="ops",
            none=_NO_POOLER,
        ),
    ]


def databases() -> Dashboard:
    """Return the dashboard."""
    database = board.several(board.labels("database", 'up{job="postgres"}', "database")).all_value(".*")
    return board.board(
        board.DATABASES,
        "Tidemark: databases and poolers",
        "The servers of source, warehouse and Airflow, and the pooler before them.",
        [("", _now()), ("Servers", _servers()), ("Room", _room()), ("PgBouncer", _poolers())],
        variables=[database.label("Database")],
        since="now-6h",
    )
