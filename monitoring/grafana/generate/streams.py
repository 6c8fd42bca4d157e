"""Streams: the story of one stream, from its run records and its metrics."""

from __future__ import annotations

from typing import TYPE_CHECKING

from grafana_foundation_sdk.models.dashboard import VariableSort

from monitoring.grafana.generate import board
from monitoring.grafana.generate.overview import last_outcome
from monitoring.grafana.generate.panels import (
    BAD,
    BUSY,
    GOOD,
    NEUTRAL,
    OUTCOMES,
    WARNING,
    column,
    columns,
    graph,
    limits,
    listing,
    tile,
)
from monitoring.grafana.generate.queries import PROMETHEUS, RUN_RECORDS, Sql, SqlAnnotation, now, over_time

if TYPE_CHECKING:
    from grafana_foundation_sdk.cog.builder import Builder
    from grafana_foundation_sdk.models.dashboard import Dashboard, Panel

_ONE = 'source="$source", stream="$stream"'
_RUNS = "${schema:doublequote}._tidemark_runs"
_CHANGES = "${schema:doublequote}._tidemark_schema_changes"
_COLORS = dict(OUTCOMES.values())


def _metric(name: str, by: str = "", more: str = "") -> str:
    """Return a metric of the stream; `max` leaves out where it was scraped."""
    return f"max by ({by}) ({name}{{{_ONE}{more}}})"


def _now() -> list[Builder[Panel]]:
    interval = _metric("tidemark_stream_interval_seconds")
    return [
        tile(
            "Latest run",
            now(last_outcome(f", {_ONE}")),
            PROMETHEUS,
            about="The outcome of the latest run.",
            mapped=OUTCOMES,
            none="Never ran",
            missing=WARNING,
        ),
        tile(
            "Age of data",
            now(_metric("tidemark_stream_lag_seconds")),
            PROMETHEUS,
            about="The age of the source's state that the warehouse has all of.",
            unit="s",
            none="Never loaded",
        ),
        tile(
            "Age, in intervals",
            now(f"{_metric('tidemark_stream_lag_seconds')} / {interval}"),
            PROMETHEUS,
            about="The same, in intervals of the stream's schedule. An alert fires above 2.",
            steps=limits((1.5, WARNING), (2, BAD)),
            decimals=1,
            none="Not scheduled",
        ),
        tile(
            "Last success",
            now(f"time() - {_metric('tidemark_stream_last_success_timestamp_seconds')}"),
            PROMETHEUS,
            about="How long ago the last successful run ended.",
            unit="s",
            none="Never",
        ),
        tile(
            "Bookmark held back",
            now(_metric("tidemark_stream_bookmark_held_seconds")),
            PROMETHEUS,
            about=(
                "For how long an open transaction in the source had held the bookmark back, when the stream was last "
                "read. 0 if nothing did."
            ),
            unit="s",
            steps=limits((3600, WARNING)),
            none="Not known",
        ),
        tile(
            "Rows that differ",
            now(f"sum({_metric('tidemark_stream_reconcile_rows', 'difference')})"),
            PROMETHEUS,
            about="Missing, different and extra rows that the latest comparison found and did not repair.",
            steps=limits((1, BAD)),
            none="Never compared",
            link=board.runbook("reconcile"),
        ),
    ]


def _over_time() -> list[Builder[Panel]]:
    return [
        graph(
            "Age of data",
            [
                over_time(_metric("tidemark_stream_lag_seconds"), "age of data", "A"),
                over_time(_metric("tidemark_stream_interval_seconds"), "interval of the schedule", "B"),
            ],
            PROMETHEUS,
            about="It falls with each successful run. It should not rise above two intervals.",
            unit="s",
        ),
        graph(
            "Duration of the latest run, by step",
            [over_time(_metric("tidemark_stream_last_run_duration_seconds", "step"), "{{step}}")],
            PROMETHEUS,
            about=(
                "`whole` is the time from beginning to end. The other steps add up what parallel workers did, so they "
                "can be longer."
            ),
            unit="s",
            stairs=True,
            table_legend=True,
        ),
        graph(
            "Rows per run, by operation",
            [
                Sql(
                    RUN_RECORDS,
                    f"""
                    select started_at as time, operation as metric, rows as value
                    from {_RUNS}, lateral (values
                        ('inserted', rows_inserted), ('updated', rows_updated), ('deleted', rows_deleted),
                        ('unchanged', rows_unchanged), ('rejected', rows_rejected)
                    ) as counted (operation, rows)
                    where stream = ${{stream:sqlstring}} and $__timeFilter(started_at) and ended_at is not null
                    order by started_at
                    """,
                    series=True,
                )
            ],
            RUN_RECORDS,
            about="A bar for each run, at its beginning.",
            unit="short",
            none="No run in this time range",
            bars=True,
            stacked=True,
        ),
        graph(
            "Bytes and pages per run",
            [
                Sql(
                    RUN_RECORDS,
                    f"""
                    select started_at as time, what as metric, size as value
                    from {_RUNS}, lateral (values
                        ('loaded', bytes), ('sent by the source', source_bytes),
                        ('pages in the source''s memory', source_buffers_hit * 8192),
                        ('pages it had to read', source_buffers_read * 8192), ('WAL it wrote', source_wal_bytes)
                    ) as counted (what, size)
                    where stream = ${{stream:sqlstring}} and $__timeFilter(started_at) and ended_at is not null
                        and size is not null
                    order by started_at
                    """,
                    series=True,
                )
            ],
            RUN_RECORDS,
            about=(
                "The size of the files that were loaded, and what reading cost the source: what it sent, the pages it "
                "looked at (of 8 KiB, as by default), and the WAL that it wrote because of that."
            ),
            unit="bytes",
            none="No run in this time range",
            bars=True,
        ),
        graph(
            "What holds the bookmark back",
            [over_time(_metric("tidemark_stream_bookmark_held_seconds", "by"), "{{by}}")],
            PROMETHEUS,
            about="For how long, when the stream was last read. The next run reads the rows after the bookmark again.",
            unit="s",
            stairs=True,
            span=8,
        ),
        graph(
            "Retries",
            [over_time(f"sum(increase(tidemark_stream_retries_total{{{_ONE}}}[$__rate_interval]))", "retries")],
            PROMETHEUS,
            about="How often reading or loading a part of the stream was tried again.",
            unit="short",
            bars=True,
            span=8,
        ),
        graph(
            "Failed and killed runs",
            [
                over_time(
                    f"sum by (outcome) (increase(tidemark_stream_runs_total{{{_ONE}, "
                    'outcome=~"failed|killed"}[$__rate_interval]))',
                    "{{outcome}}",
                )
            ],
            PROMETHEUS,
            about="Runs that did not succeed. The table below has their errors.",
            unit="short",
            none="No run has failed",
            bars=True,
            span=8,
        ),
        *_log(),
    ]


def _log() -> list[Builder[Panel]]:
    def of_slot(name: str) -> str:
        return f'max by (slot) ({name}{{source="$source"}})'

    return [
        graph(
            "Behind the source's log",
            [over_time(of_slot("tidemark_slot_lag_seconds"), "{{slot}}")],
            PROMETHEUS,
            about="LOG_BASED streams: the age of the source's state that the warehouse has of a replication slot.",
            unit="s",
            none="No LOG_BASED stream",
        ),
        graph(
            "WAL of the replication slot",
            [
                over_time(of_slot("tidemark_slot_lag_bytes"), "not loaded, of {{slot}}", "A"),
                over_time(of_slot("tidemark_slot_retained_bytes"), "kept for {{slot}}", "B"),
            ],
            PROMETHEUS,
            about=(
                "What the source wrote and the warehouse does not have, and all that the source keeps, as runs saw "
                "it. The dashboard of databases has what it keeps while none runs, from postgres_exporter."
            ),
            unit="bytes",
            none="No LOG_BASED stream, or no run just now",
        ),
    ]


def _runs() -> Builder[Panel]:
    runs = listing(
        "Runs",
        [
            Sql(
                RUN_RECORDS,
                f"""
                select started_at, outcome, extract(epoch from coalesce(ended_at, now()) - started_at) as seconds,
                    rows_read, rows_inserted, rows_updated, rows_deleted, rows_rejected, bytes,
                    extract(epoch from lag) as lag, bookmark_after, error_code, error, run_id
                from {_RUNS}
                where stream = ${{stream:sqlstring}} and $__timeFilter(started_at)
                order by started_at desc
                limit 200
                """,
            )
        ],
        RUN_RECORDS,
        about="The newest 200 runs in this time range. A run's id leads to its DAG run, if Airflow started it.",
        none="No run in this time range",
        height=10,
    )
    names = {
        "started_at": "Started",
        "outcome": "Outcome",
        "seconds": "Duration",
        "rows_read": "Read",
        "rows_inserted": "Inserted",
        "rows_updated": "Updated",
        "rows_deleted": "Deleted",
        "rows_rejected": "Rejected",
        "bytes": "Size",
        "lag": "Lag",
        "bookmark_after": "Bookmark",
        "error_code": "Code",
        "error": "Error",
        "run_id": "Run",
    }
    runs = columns(runs, names)
    runs = column(runs, "Started", unit="dateTimeAsIso", width=170)
    runs = column(runs, "Outcome", colors=_COLORS, width=100)
    runs = column(runs, "Code", link=board.runbook("${__value.raw}"))
    runs = column(runs, "Run", link=f"{board.AIRFLOW_URL}/tidemark/runs/${{__value.raw}}")
    for name in ("Duration", "Lag"):
        runs = column(runs, name, unit="s", width=90)
    for name in ("Read", "Inserted", "Updated", "Deleted", "Rejected"):
        runs = column(runs, name, unit="short", width=80)
    return column(runs, "Size", unit="bytes", width=90)


def _changes() -> list[Builder[Panel]]:
    changes = listing(
        "Schema changes",
        [
            Sql(
                RUN_RECORDS,
                f"""
                select changed_at, column_name, change, was, becomes
                from {_CHANGES}
                where stream = ${{stream:sqlstring}}
                order by id desc
                limit 50
                """,
            )
        ],
        RUN_RECORDS,
        about="The newest 50 columns that changed in the source and were followed, whatever the time range.",
        none="No column has changed",
        span=12,
    )
    names = {"changed_at": "When", "column_name": "Column", "change": "Change", "was": "Was", "becomes": "Becomes"}
    changes = column(columns(changes, names), "When", unit="dateTimeAsIso", width=170)
    found = graph(
        "Rows that comparisons found",
        [over_time(_metric("tidemark_stream_reconcile_rows", "difference"), "{{difference}}")],
        PROMETHEUS,
        about="What `tidemark reconcile` found and did not repair.",
        unit="short",
        none="Never compared",
        stairs=True,
    )
    compared = tile(
        "Last comparison",
        now(f"time() - {_metric('tidemark_stream_reconciled_timestamp_seconds')}"),
        PROMETHEUS,
        about="How long ago source and warehouse were last compared.",
        span=6,
        unit="s",
        none="Never compared",
    )
    locked = tile(
        "Run lock",
        now(_metric("tidemark_stream_locked")),
        PROMETHEUS,
        about="Whether a run holds the stream's lock now.",
        span=6,
        mapped={0: ("free", NEUTRAL), 1: ("held", BUSY)},
    )
    rejects = tile(
        "Rejects waiting",
        now(_metric("tidemark_stream_rejects")),
        PROMETHEUS,
        about="Records that the table could not hold. They wait in `_tidemark_rejects` until somebody deletes them.",
        span=6,
        steps=limits((1, WARNING)),
        link=board.runbook("rejects"),
    )
    state = tile(
        "Meltano's state",
        now(f"sgn({_metric('tidemark_stream_state_behind_seconds')})"),
        PROMETHEUS,
        about="Meltano's bookmark beside the warehouse's. Only for bookmarks that are times.",
        span=6,
        mapped={-1: ("ahead", BAD), 0: ("equal", GOOD), 1: ("behind", WARNING)},
        none="Bookmark is no time",
        link=board.runbook("state"),
    )
    return [rejects, compared, locked, state, changes, found]


def streams() -> Dashboard:
    """Return the dashboard."""
    source = board.labels("source", "tidemark_source_info", "source").label("Source")
    # for SQL: the schema that it is loaded into
    schema = board.hidden("schema", 'tidemark_source_info{source="$source"}', "schema")
    stream = board.labels("stream", 'tidemark_stream_last_run{source="$source"}', "stream").label("Stream")
    changes = SqlAnnotation(
        "Schema changes",
        RUN_RECORDS,
        f"""
        select changed_at as time, concat_ws(' ', column_name, change, was, '→ ' || becomes) as text, 'schema' as tags
        from {_CHANGES}
        where stream = ${{stream:sqlstring}} and $__timeFilter(changed_at)
        """,
        "purple",
    )
    failures = SqlAnnotation(
        "Failed runs",
        RUN_RECORDS,
        f"""
        select started_at as time, outcome || ': ' || coalesce(error, 'no message') as text,
            coalesce(error_code, outcome) as tags
        from {_RUNS}
        where stream = ${{stream:sqlstring}} and outcome in ('failed', 'killed') and $__timeFilter(started_at)
        """,
        BAD,
    )
    return board.board(
        board.STREAMS,
        "Tidemark: streams",
        "The story of one stream.",
        [("", _now()), ("Over time", _over_time()), ("Runs", [_runs()]), ("Changes and comparisons", _changes())],
        variables=[source, schema, stream.sort(VariableSort.ALPHABETICAL_ASC)],
        marks=[changes, failures],
        since="now-7d",
    )
