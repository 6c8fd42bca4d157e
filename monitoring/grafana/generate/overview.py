"""Overview: is all well, what isn't, and since when."""

from __future__ import annotations

from typing import TYPE_CHECKING

from monitoring.grafana.generate import board
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
    states,
    tile,
)
from monitoring.grafana.generate.queries import PROMETHEUS, now, over_time, rows

if TYPE_CHECKING:
    from grafana_foundation_sdk.cog.builder import Builder
    from grafana_foundation_sdk.models.dashboard import Dashboard, Panel

_HOUR = 3600
_PER_STREAM = "max by (source, stream)"
# how many intervals of its schedule a stream's data is old
_AGE_IN_INTERVALS = f"{_PER_STREAM} (tidemark_stream_lag_seconds) / {_PER_STREAM} (tidemark_stream_interval_seconds)"
_LATE = limits((1.5, WARNING), (2, BAD))
_SEVERITIES = {"critical": BAD, "warning": WARNING}


def last_outcome(more: str = "") -> str:
    """Return an expression for the state of each stream's latest run, by its number in `OUTCOMES`; running wins."""
    numbers = {word: number for number, (word, _) in OUTCOMES.items()}
    running = f"{numbers.pop('running')} + 0 * {_PER_STREAM} (tidemark_stream_running_rows{{{more.lstrip(', ')}}})"
    ended = (
        f'{number} * {_PER_STREAM} (tidemark_stream_last_run{{outcome="{word}"{more}}})'
        for word, number in numbers.items()
    )
    return " or ".join((running, *ended))


def _count(of: str, among: str) -> str:
    """Return an expression that is 0 if there are none, and has no value if `among` is missing altogether."""
    return f"count({of}) or 0 * count({among})"


def _count_streams(selector: str) -> str:
    """Return how many streams there are whose last ended run has these labels. A stream may be scraped twice."""
    return _count(f"{_PER_STREAM} (tidemark_stream_last_run{{{selector}}})", "tidemark_stream_last_run")


def _tiles() -> list[Builder[Panel]]:
    failed = 'tidemark_model_tests{result=~"fail|error"}'
    down = "(target:up == 0) or (tidemark_up == 0)"
    return [
        tile(
            "Is all well?",
            # without rules nothing fires: that must not look like health
            now('count(ALERTS{alertstate="firing"}) or 0 * sum(prometheus_rule_group_rules)'),
            PROMETHEUS,
            about="Alerts that are firing now. The table below says which, and since when.",
            steps=limits((1, BAD)),
            mapped={0: ("All is well", GOOD)},
            unit="suffix:alerts",
            none="No alert rules are loaded",
            missing=BAD,
        ),
        tile(
            "Streams that failed",
            now(_count_streams('outcome=~"failed|killed"')),
            PROMETHEUS,
            about="Streams whose last ended run failed or was killed.",
            steps=limits((1, BAD)),
            none="No data: is the exporter up?",
            missing=BAD,
        ),
        tile(
            "Oldest data, in intervals",
            now(f"max({_AGE_IN_INTERVALS})"),
            PROMETHEUS,
            about=(
                "The age of the oldest stream's data, in intervals of its schedule: 1 is one interval. Streams without "
                "a schedule do not count."
            ),
            steps=_LATE,
            decimals=1,
            none="No stream has a schedule",
        ),
        tile(
            "Data tests failing",
            now(f"sum(max by (model, result) ({failed})) or 0 * sum(tidemark_model_tests)"),
            PROMETHEUS,
            about="Data tests that failed, or could not run, the last time they were tried.",
            steps=limits((1, BAD)),
            none="No test has run",
            missing=WARNING,
            link=f"/d/{board.MODELS}",
        ),
        tile(
            "Last backup",
            now("time() - max(tidemark_backup_last_success_timestamp_seconds)"),
            PROMETHEUS,
            about="How long ago the newest complete backup began. An alert fires after 26 hours.",
            unit="s",
            steps=limits((25 * _HOUR, WARNING), (26 * _HOUR, BAD)),
            none="No backup",
            missing=BAD,
            link=board.runbook("backup"),
        ),
        tile(
            "Parts down",
            now(_count(down, "target:up")),
            PROMETHEUS,
            about="Targets that Prometheus can't scrape, and parts that the exporter can't read.",
            steps=limits((1, BAD)),
            mapped={0: ("None", GOOD)},
            none="No target is scraped",
            missing=BAD,
        ),
    ]


def _alerts() -> list[Builder[Panel]]:
    # ALERTS_FOR_STATE is when an alert's condition began to hold
    since = '(time() - ALERTS_FOR_STATE) * ignoring(alertstate) group_right () ALERTS{alertstate=~"firing|pending"}'
    alerts = listing(
        "What is wrong, and since when",
        [rows(since)],
        PROMETHEUS,
        about="Alerts that fire, and those that will fire if they last. A name leads to its section in the runbook.",
        none="No alert is firing or pending",
        span=14,
        sort=("Since", True),
    )
    names = {"alertname": "Alert", "severity": "Severity", "alertstate": "State", "Value": "Since"}
    names |= {label: label.capitalize() for label in ("source", "stream", "model", "database")}
    alerts = columns(alerts, names, hidden=("component", "also_from"))
    alerts = column(alerts, "Alert", link=board.ALERT_OF_ROW)
    alerts = column(alerts, "Severity", colors=_SEVERITIES, width=90)
    alerts = column(alerts, "State", colors={"firing": BAD, "pending": WARNING}, width=90)
    alerts = column(alerts, "Since", unit="s", width=110)
    return [
        alerts,
        states(
            "Alerts over time",
            over_time(
                '2 * max by (alertname) (ALERTS{alertstate="firing"}) '
                'or max by (alertname) (ALERTS{alertstate="pending"})',
                "{{alertname}}",
            ),
            PROMETHEUS,
            {1: ("pending", WARNING), 2: ("firing", BAD)},
            about="When each alert began and ended.",
            none="No alert in this time range",
            span=10,
        ),
    ]


def _streams() -> list[Builder[Panel]]:
    lag = f"{_PER_STREAM} (tidemark_stream_lag_seconds)"
    whole = f'{_PER_STREAM} (tidemark_stream_last_run_duration_seconds{{step="whole"}})'
    streams = listing(
        "Streams",
        [
            rows(last_outcome(), "outcome"),
            rows('max by (source, stream, code) (tidemark_stream_last_run{outcome=~"failed|killed"})', "error"),
            rows(lag, "lag"),
            rows(_AGE_IN_INTERVALS, "late"),
            rows(f"time() - {_PER_STREAM} (tidemark_stream_last_success_timestamp_seconds)", "success"),
            rows(f"{_PER_STREAM} (tidemark_stream_last_run_rows)", "rows"),
            rows(whole, "duration"),
        ],
        PROMETHEUS,
        about="Every stream with its latest run. A stream's name leads to its story.",
        none="No stream has run yet, or the exporter is down",
        height=9,
        sort=("Intervals", True),
    )
    names = {
        "source": "source",
        "stream": "stream",
        "Value #outcome": "Last run",
        "code": "Error",
        "Value #lag": "Age of data",
        "Value #late": "Intervals",
        "Value #success": "Last success",
        "Value #rows": "Rows",
        "Value #duration": "Duration",
    }
    streams = columns(streams, names, hidden=("Value #error",))
    streams = column(streams, "stream", link=board.STREAM_OF_ROW)
    streams = column(streams, "Last run", mapped=OUTCOMES)
    streams = column(streams, "Error", link=board.runbook("${__value.raw}"))
    streams = column(streams, "Age of data", unit="s")
    streams = column(streams, "Intervals", unit="none", steps=_LATE)
    streams = column(streams, "Last success", unit="s")
    streams = column(streams, "Rows", unit="short")
    streams = column(streams, "Duration", unit="s")
    return [
        streams,
        states(
            "Outcomes over time",
            over_time(last_outcome(), "{{source}} {{stream}}"),
            PROMETHEUS,
            OUTCOMES,
            about="The outcome of each stream's latest run, at each time.",
        ),
        graph(
            "Age of data, in intervals of the schedule",
            [over_time(f"topk(10, {_AGE_IN_INTERVALS})", "{{source}} {{stream}}")],
            PROMETHEUS,
            about="The ten streams with the oldest data. An alert fires above 2.",
            unit="none",
            none="No stream has a schedule",
            steps=((2, BAD),),
        ),
    ]


def _parts() -> list[Builder[Panel]]:
    parts = {0: ("down", BAD), 1: ("up", GOOD)}
    answers = states(
        "Parts over time",
        over_time(
            'min by (part) (label_join(target:up, "part", " ", "job", "database", "instance")) '
            'or min by (part) (label_replace(tidemark_up, "part", "tidemark reads $1", "part", "(.*)"))',
            "{{part}}",
        ),
        PROMETHEUS,
        parts,
        about="Targets that Prometheus scrapes, and parts that the exporter reads.",
        span=24,
    )
    running = f"{_PER_STREAM} (tidemark_stream_running_rows)"
    return [
        answers,
        tile(
            "Runs in progress",
            now(_count(running, "tidemark_stream_last_run_started_timestamp_seconds")),
            PROMETHEUS,
            about="Streams that a run is loading now.",
            mapped={0: ("None", NEUTRAL)},
            steps=((None, BUSY),),
        ),
        tile(
            "Size of the last backup",
            now("max(tidemark_backup_size_bytes)"),
            PROMETHEUS,
            about="The size of the newest complete backup.",
            unit="bytes",
            none="No backup",
        ),
        tile(
            "Last drill",
            now("time() - max(tidemark_backup_drill_timestamp_seconds)"),
            PROMETHEUS,
            about="How long ago a drill last tried to restore a backup.",
            unit="s",
            none="No drill",
        ),
        tile(
            "Result of the drill",
            now("max(tidemark_backup_drill_success)"),
            PROMETHEUS,
            about="Whether that drill could restore the backup.",
            mapped={0: ("failed", BAD), 1: ("restored", GOOD)},
            none="No drill",
            missing=WARNING,
            link=board.runbook("backup"),
        ),
        *_airflow(),
    ]


def _airflow() -> list[Builder[Panel]]:
    heartbeats = "sum(increase(airflow_scheduler_heartbeat_total[5m]))"
    return [
        tile(
            "Airflow's scheduler",
            now(f"{heartbeats} > bool 0"),
            PROMETHEUS,
            about="Whether it sent a heartbeat in the last 5 minutes. Airflow sends its metrics by itself.",
            mapped={0: ("gone", BAD), 1: ("alive", GOOD)},
            none="Airflow sends no metrics",
            link=board.runbook("scheduler"),
        ),
        tile(
            "Tasks starving",
            now("max(airflow_scheduler_tasks_starving)"),
            PROMETHEUS,
            about="Tasks that could run if a pool had a free slot.",
            steps=limits((1, WARNING)),
            none="Airflow sends no metrics",
            link=board.runbook("starving"),
        ),
    ]


def overview() -> Dashboard:
    """Return the dashboard."""
    return board.board(
        board.OVERVIEW,
        "Tidemark: overview",
        "Is all well, what isn't, and since when.",
        [("", [*_tiles(), *_alerts()]), ("Streams", _streams()), ("Parts and backups", _parts())],
        refresh="30s",
    )
