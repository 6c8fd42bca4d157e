"""Models and tests: what dbt built, how long it took, and what its tests say."""

from __future__ import annotations

from typing import TYPE_CHECKING

from monitoring.grafana.generate import board
from monitoring.grafana.generate.panels import (
    BAD,
    BUSY,
    GOOD,
    NEUTRAL,
    WARNING,
    column,
    columns,
    graph,
    limits,
    listing,
    states,
    tile,
)
from monitoring.grafana.generate.queries import PROMETHEUS, RUN_RECORDS, Sql, now, over_time, rows

if TYPE_CHECKING:
    from grafana_foundation_sdk.cog.builder import Builder
    from grafana_foundation_sdk.models.dashboard import Dashboard, Panel

_MODELS = 'model=~"$model"'
# as dbt reports them, and their numbers in expressions
_OUTCOMES = {1: ("success", GOOD), 2: ("skipped", WARNING), 3: ("error", BAD)}
_OUTCOME = " or ".join(
    f'{number} * max by (model) (tidemark_model_last_run{{outcome="{word}", {_MODELS}}})'
    for number, (word, _) in _OUTCOMES.items()
)


def _tests(results: str, more: str = "") -> str:
    return f'max by (model, result) (tidemark_model_tests{{result=~"{results}"{more}}})'


def _now() -> list[Builder[Panel]]:
    oldest = "time() - min(tidemark_model_last_success_timestamp_seconds)"
    every = "0 * count(tidemark_model_last_run)"
    return [
        tile(
            "Models that failed",
            now(f'count(max by (model) (tidemark_model_last_run{{outcome="error"}})) or {every}'),
            PROMETHEUS,
            about="Models whose latest build failed. They keep the rows of the last good one.",
            steps=limits((1, BAD)),
            none="No model was built",
            missing=WARNING,
            link=board.runbook("models"),
        ),
        tile(
            "Models skipped",
            now(f'count(max by (model) (tidemark_model_last_run{{outcome="skipped"}})) or {every}'),
            PROMETHEUS,
            about="Models that the latest build skipped, because one below them failed.",
            steps=limits((1, WARNING)),
            none="No model was built",
        ),
        tile(
            "Oldest model, in intervals",
            now(f"({oldest}) / max(tidemark_build_interval_seconds)"),
            PROMETHEUS,
            about=(
                "The age of the model that has waited longest, in intervals of the schedule that builds models. An "
                "alert fires above 2."
            ),
            steps=limits((1.5, WARNING), (2, BAD)),
            decimals=1,
            none="No build is scheduled",
            link=board.runbook("marts"),
        ),
        tile(
            "Tests failing",
            now(f"sum({_tests('fail|error')}) or 0 * sum(tidemark_model_tests)"),
            PROMETHEUS,
            about="Data tests that failed, or could not run, the last time they were tried.",
            steps=limits((1, BAD)),
            none="No test has run",
            missing=WARNING,
            link=board.runbook("tests"),
        ),
        tile(
            "Last tests",
            now("time() - max(tidemark_tests_last_run_timestamp_seconds)"),
            PROMETHEUS,
            about="How long ago data tests last ran.",
            unit="s",
            none="No test has run",
        ),
        tile(
            "Build lock",
            now("max(tidemark_build_locked)"),
            PROMETHEUS,
            about="Whether a build holds the lock of the models now.",
            mapped={0: ("free", NEUTRAL), 1: ("held", BUSY)},
        ),
    ]


def _table() -> Builder[Panel]:
    def per_model(metric: str) -> str:
        return f"max by (model) ({metric}{{{_MODELS}}})"

    def tests(results: str) -> str:
        # 0 for a model without such a result, so that the column is always there
        none = f"0 * {per_model('tidemark_model_last_run')}"
        return f"sum by (model) ({_tests(results, f', {_MODELS}')}) or {none}"

    models = listing(
        "Models",
        [
            rows(_OUTCOME, "outcome"),
            rows(f"time() - {per_model('tidemark_model_last_success_timestamp_seconds')}", "built"),
            rows(per_model("tidemark_model_last_run_duration_seconds"), "duration"),
            rows(per_model("tidemark_model_last_run_rows"), "written"),
            rows(per_model("tidemark_model_rows"), "rows"),
            rows(tests("pass"), "passed"),
            rows(tests("warn"), "warned"),
            rows(tests("fail|error"), "failed"),
        ],
        PROMETHEUS,
        about="Every model with its latest build and the latest results of its tests.",
        none="No model was built, or the exporter is down",
        height=12,
        sort=("Duration", True),
    )
    names = {
        "model": "Model",
        "Value #outcome": "Latest build",
        "Value #built": "Built",
        "Value #duration": "Duration",
        "Value #written": "Rows written",
        "Value #rows": "Rows",
        "Value #passed": "Tests passed",
        "Value #warned": "Tests warned",
        "Value #failed": "Tests failed",
    }
    models = column(columns(models, names), "Latest build", mapped=_OUTCOMES)
    for name in ("Built", "Duration"):
        models = column(models, name, unit="s")
    for name in ("Rows written", "Rows", "Tests passed"):
        models = column(models, name, unit="short")
    models = column(models, "Tests warned", unit="short", steps=((None, NEUTRAL), (1, WARNING)))
    return column(models, "Tests failed", unit="short", steps=((None, NEUTRAL), (1, BAD)))


def _over_time() -> list[Builder[Panel]]:
    duration = f"topk(10, max by (model) (tidemark_model_last_run_duration_seconds{{{_MODELS}}}))"
    written = f"topk(10, max by (model) (tidemark_model_last_run_rows{{{_MODELS}}}))"
    return [
        graph(
            "Duration of the latest build",
            [over_time(duration, "{{model}}")],
            PROMETHEUS,
            about="The ten models that took longest.",
            unit="s",
            stairs=True,
        ),
        graph(
            "Rows written by the latest build",
            [over_time(written, "{{model}}")],
            PROMETHEUS,
            about="The ten models that wrote most.",
            unit="short",
            stairs=True,
        ),
        states(
            "Builds over time",
            over_time(_OUTCOME, "{{model}}"),
            PROMETHEUS,
            _OUTCOMES,
            about="The outcome of each model's latest build, at each time.",
            height=10,
        ),
        graph(
            "Tests by result",
            [over_time(f"sum by (result) ({_tests('.+')})", "{{result}}")],
            PROMETHEUS,
            about="All data tests, by the result of their latest run.",
            unit="short",
            none="No test has run",
            stacked=True,
            height=10,
        ),
    ]


def _failures() -> Builder[Panel]:
    failures = listing(
        "Builds that failed",
        [
            Sql(
                RUN_RECORDS,
                """
                select started_at, model, outcome, seconds, message, run_id
                from marts._tidemark_model_runs
                where outcome not in ('success', 'skipped') and $__timeFilter(started_at)
                order by started_at desc
                limit 100
                """,
            )
        ],
        RUN_RECORDS,
        about="What dbt said, the newest first. A run's id leads to its DAG run, if Airflow started it.",
        none="No build failed in this time range",
    )
    names = {
        "started_at": "Started",
        "model": "Model",
        "outcome": "Outcome",
        "seconds": "Duration",
        "message": "Message",
        "run_id": "Run",
    }
    failures = column(columns(failures, names), "Started", unit="dateTimeAsIso", width=170)
    failures = column(failures, "Duration", unit="s", width=90)
    return column(failures, "Run", link=f"{board.AIRFLOW_URL}/tidemark/runs/${{__value.raw}}", width=290)


def models() -> Dashboard:
    """Return the dashboard."""
    model = board.several(board.labels("model", "tidemark_model_last_run", "model")).all_value(".*").label("Model")
    return board.board(
        board.MODELS,
        "Tidemark: models and tests",
        "What dbt built, how long it took, and what its tests say.",
        [("", [*_now(), _table()]), ("Over time", _over_time()), ("Failures", [_failures()])],
        variables=[model],
        since="now-7d",
    )
