"""All metrics of `tidemark metrics`. The collectors take them from here, and docs/reference/metrics.md is made of them.

Names follow Prometheus: base units, `_total` on counters. Counters count committed rows and ended runs, and survive
restarts of the exporter, because the warehouse keeps them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Metric:
    """One metric.

    Attributes:
        name: the name of its samples.
        about: what a sample says.
        labels: the names of its labels.
        series: how many series it has at most.
        kind: its type in OpenMetrics.
    """

    name: str
    about: str
    labels: tuple[str, ...] = ()
    series: str = "1"
    kind: Literal["counter", "gauge", "info"] = "gauge"


_STREAM = ("source", "stream")
_PER_STREAM = "1 a stream"

# --- the exporter
BUILD = Metric("tidemark_build_info", "The release of Tidemark that exports this.", ("version",), kind="info")
UP = Metric(
    "tidemark_up",
    "Whether a part could be read: warehouse, models, state, schedules or backups. If not, its metrics are missing.",
    ("part",),
    "5",
)
SCRAPE_SECONDS = Metric("tidemark_scrape_duration_seconds", "How long reading a part took.", ("part",), "5")
SERVER = Metric("tidemark_warehouse_info", "The version of the warehouse's PostgreSQL.", ("version",), kind="info")
LINKS = Metric(
    "tidemark_links_info",
    "The addresses of this installation's Airflow and runbook, to which the dashboards link.",
    ("airflow_url", "runbook_url"),
    kind="info",
)
TABLE_VERSION = Metric(
    "tidemark_table_version",
    "The version of one of Tidemark's tables in the warehouse, as the reference lists them.",
    ("schema", "table"),
    "8 a schema",
)

# --- streams
SOURCE = Metric(
    "tidemark_source_info",
    "A source, and the warehouse's schema that it is loaded into. Other metrics have the same label `source`.",
    ("source", "schema"),
    "1 a source",
    kind="info",
)
STREAM_LAST_SUCCESS = Metric(
    "tidemark_stream_last_success_timestamp_seconds",
    "When the stream's last successful run ended.",
    _STREAM,
    _PER_STREAM,
)
STREAM_LAG = Metric(
    "tidemark_stream_lag_seconds",
    "The age of the source's state that the warehouse has all of.",
    _STREAM,
    _PER_STREAM,
)
STREAM_INTERVAL = Metric(
    "tidemark_stream_interval_seconds",
    "The longest time between two runs by the stream's shortest schedule.",
    _STREAM,
    _PER_STREAM,
)
STREAM_LAST_RUN = Metric(
    "tidemark_stream_last_run",
    "1, with the outcome of the latest ended run (succeeded, failed, killed) and the code of its error, if it has one. "
    "A backfill or a repair is no run here.",
    (*_STREAM, "outcome", "code"),
    _PER_STREAM,
)
STREAM_LAST_RUN_STARTED = Metric(
    "tidemark_stream_last_run_started_timestamp_seconds",
    "When the stream's latest run began to load it, whether or not it has ended.",
    _STREAM,
    _PER_STREAM,
)
STREAM_RUNNING_ROWS = Metric(
    "tidemark_stream_running_rows",
    "Rows that the running run has loaded or staged so far. Absent while none runs.",
    _STREAM,
    _PER_STREAM,
)
STREAM_LAST_RUN_SECONDS = Metric(
    "tidemark_stream_last_run_duration_seconds",
    "How long the last ended run took for the stream. The step `whole` is the time from its beginning to its end. The "
    "others add up what parallel workers did: reading the source, pausing to stay below max_source_mb_per_s, copying "
    "into the warehouse, and merging.",
    (*_STREAM, "step"),
    "5 a stream",
)
STREAM_SOURCE_BYTES = Metric(
    "tidemark_stream_last_run_source_bytes",
    "What the source sent in the last successful run, and the WAL that it wrote because it was read; only PostgreSQL "
    "18 counts that.",
    (*_STREAM, "kind"),
    "2 a stream",
)
STREAM_SOURCE_PAGES = Metric(
    "tidemark_stream_last_run_source_pages",
    "Pages that the source looked at for that run: hit in its memory, or read from its system. Absent for views.",
    (*_STREAM, "found"),
    "2 a stream",
)
STREAM_SNAPSHOT = Metric(
    "tidemark_stream_last_run_snapshot_seconds",
    "The longest time for which that run held a snapshot in the source. The source keeps dead rows as long.",
    _STREAM,
    _PER_STREAM,
)
STREAM_LAST_RUN_ROWS = Metric(
    "tidemark_stream_last_run_rows",
    "Rows that the last successful run wrote: inserted, updated and deleted.",
    _STREAM,
    _PER_STREAM,
)
STREAM_USUAL_ROWS = Metric(
    "tidemark_stream_usual_rows",
    "The median of that in the 20 successful runs before. Absent while there are fewer than 5.",
    _STREAM,
    _PER_STREAM,
)
STREAM_ROWS = Metric(
    "tidemark_stream_rows_total",
    "Rows that were inserted, updated, deleted, unchanged or rejected.",
    (*_STREAM, "operation"),
    "5 a stream",
    "counter",
)
STREAM_REJECTS = Metric(
    "tidemark_stream_rejects",
    "Records of the stream in _tidemark_rejects: delete them there after you have looked at them.",
    _STREAM,
    _PER_STREAM,
)
STREAM_BYTES = Metric(
    "tidemark_stream_loaded_bytes_total", "Size of the files that were loaded.", _STREAM, _PER_STREAM, "counter"
)
STREAM_SIZE = Metric(
    "tidemark_stream_table_size_bytes",
    "The size of the stream's table in the warehouse (rows), and of the history of its changes (changes), with indexes "
    "and partitions, as the last VACUUM or ANALYZE saw them.",
    (*_STREAM, "table"),
    "2 a stream",
)
STREAM_RUNS = Metric(
    "tidemark_stream_runs_total",
    "Ended runs, by outcome: succeeded, failed or killed.",
    (*_STREAM, "outcome"),
    "3 a stream",
    "counter",
)
STREAM_FAILURES = Metric(
    "tidemark_stream_failures_total",
    "Failed runs, by the code of the error.",
    (*_STREAM, "code"),
    "1 a stream and code that occurred, of those in the reference of errors",
    "counter",
)
STREAM_RETRIES = Metric(
    "tidemark_stream_retries_total",
    "How often reading or loading a part of the stream was tried again.",
    _STREAM,
    _PER_STREAM,
    "counter",
)
STREAM_SCHEMA_CHANGES = Metric(
    "tidemark_stream_schema_changes_total",
    "Columns that changed in the source, and that the warehouse followed.",
    _STREAM,
    _PER_STREAM,
    "counter",
)
STREAM_HELD = Metric(
    "tidemark_stream_bookmark_held_seconds",
    "For how long something had held the bookmark back when the stream was last read, by what: transaction, "
    "prepared_transaction, hidden_transactions, standby (always 0) or nothing.",
    (*_STREAM, "by"),
    _PER_STREAM,
)
STREAM_LOG = Metric(
    "tidemark_stream_log_state",
    "1, with how a LOG_BASED stream stands: following, loading (its first load is not complete), to be repaired (its "
    "rows may differ from the source's), or left the log (it gets no changes any more).",
    (*_STREAM, "state"),
    _PER_STREAM,
)
STREAM_LOCKED = Metric("tidemark_stream_locked", "Whether a session holds the stream's run lock.", _STREAM, _PER_STREAM)
STREAM_STATE = Metric(
    "tidemark_stream_state_behind_seconds",
    "How far Meltano's bookmark of the stream is behind the warehouse's; negative if it is ahead. Only for bookmarks "
    "that are instants.",
    _STREAM,
    _PER_STREAM,
)
STREAM_COMPARED = Metric(
    "tidemark_stream_reconciled_timestamp_seconds",
    "When source and warehouse were last compared.",
    _STREAM,
    _PER_STREAM,
)
STREAM_COMPARED_OK = Metric(
    "tidemark_stream_reconcile_success", "Whether that comparison could be made.", _STREAM, _PER_STREAM
)
STREAM_DIFFERENCES = Metric(
    "tidemark_stream_reconcile_rows",
    "Rows that it found missing, different or extra in the warehouse, and that it did not repair.",
    (*_STREAM, "difference"),
    "3 a stream",
)

# --- the logs of LOG_BASED streams
_SLOT = ("source", "slot")
_PER_SLOT = "1 a slot"
SLOT_LAG_SECONDS = Metric(
    "tidemark_slot_lag_seconds",
    "The age of the source's state that the warehouse has of the streams of a replication slot.",
    _SLOT,
    _PER_SLOT,
)
SLOT_LAG_BYTES = Metric(
    "tidemark_slot_lag_bytes",
    "The WAL that the source wrote after the position that the warehouse has, as a run saw it last: once a minute, and "
    "at its beginning and its end. Absent 10 minutes after that.",
    _SLOT,
    _PER_SLOT,
)
SLOT_RETAINED_BYTES = Metric(
    "tidemark_slot_retained_bytes",
    "All the WAL that the source keeps for the slot, in the same way. Without a run, the source alone knows it: "
    "postgres_exporter and `tidemark slots list --json` ask there.",
    _SLOT,
    _PER_SLOT,
)

# --- models
_MODEL = ("model",)
_PER_MODEL = "1 a model"
MODEL_LAST_SUCCESS = Metric(
    "tidemark_model_last_success_timestamp_seconds", "When the model was last built.", _MODEL, _PER_MODEL
)
MODEL_LAST_RUN = Metric(
    "tidemark_model_last_run",
    "1, with the outcome of the latest build, as dbt reports it: success, error or skipped.",
    (*_MODEL, "outcome"),
    _PER_MODEL,
)
MODEL_SECONDS = Metric(
    "tidemark_model_last_run_duration_seconds", "How long the latest build of the model took.", _MODEL, _PER_MODEL
)
MODEL_ROWS = Metric(
    "tidemark_model_last_run_rows",
    "Rows that the latest build wrote. Absent where PostgreSQL does not count them, as for views.",
    _MODEL,
    _PER_MODEL,
)
MODEL_ROWS_TOTAL = Metric("tidemark_model_rows", "Rows in the table, as dbt keeps count of them.", _MODEL, _PER_MODEL)
MODEL_TESTS = Metric(
    "tidemark_model_tests",
    "Data tests by their latest result: pass, warn, fail or error. A test of no model has an empty one.",
    (*_MODEL, "result"),
    "4 a model",
)
TESTS_RAN = Metric("tidemark_tests_last_run_timestamp_seconds", "When data tests last ran.")

# --- schedules, locks, backups
SCHEDULE_INTERVAL = Metric(
    "tidemark_schedule_interval_seconds",
    "The longest time between two runs of a schedule.",
    ("schedule",),
    "1 a schedule",
)
BUILD_INTERVAL = Metric(
    "tidemark_build_interval_seconds",
    "The longest time between two runs of the shortest schedule that builds the models.",
)
BUILD_LOCKED = Metric("tidemark_build_locked", "Whether a session holds the lock of dbt's builds.")
BACKUPS = Metric("tidemark_backups", "Complete backups of this pipeline.")
BACKUP_TIME = Metric("tidemark_backup_last_success_timestamp_seconds", "When the newest backup began.")
BACKUP_SECONDS = Metric("tidemark_backup_duration_seconds", "How long the newest backup took.")
BACKUP_BYTES = Metric("tidemark_backup_size_bytes", "The size of the newest backup.")
DRILL_TIME = Metric("tidemark_backup_drill_timestamp_seconds", "When a restore was last tried by a drill.")
DRILL_SUCCESS = Metric("tidemark_backup_drill_success", "Whether that drill succeeded.")
DRILL_SECONDS = Metric("tidemark_backup_drill_duration_seconds", "How long that drill took.")

ALL = tuple(value for value in list(globals().values()) if isinstance(value, Metric))
