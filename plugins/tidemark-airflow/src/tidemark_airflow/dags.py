"""Makes DAGs: one for each of Meltano's schedules, and one that reloads selected streams."""

from __future__ import annotations

from datetime import timedelta
from functools import partial
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import pendulum
from airflow.sdk import DAG, AsyncCallback, DeadlineAlert, DeadlineReference, Param

from tidemark_airflow import settings
from tidemark_airflow.alerts import callbacks
from tidemark_airflow.assets import MARTS, RAW
from tidemark_airflow.operator import TidemarkOperator
from tidemark_airflow.pools import NONE, SOURCE, WAREHOUSE

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from tidemark_airflow.schedules import Schedule, Step

# any day in the past; there is no catch-up
_START = pendulum.datetime(2024, 1, 1, tz="UTC")
_DOCS = """
This DAG comes from the schedule `{name}` in orchestrate/, through orchestrate/schedules.json. Its tasks, in order:

{tasks}

Each task is one `meltano run` of these blocks, and its log has the lines of that run. A run that ends at any point
loses no row and doubles none: the next run continues from what the warehouse has.
[What to do when a task fails](docs/runbook.md).
"""


def of_schedule(schedule: Schedule) -> DAG:
    """Return the DAG of a schedule.

    Raises:
        ValueError: its env has an invalid setting.
    """
    tasks = "\n".join(f"- **{step.name}**: `{' '.join(step.blocks)}`" for step in schedule.steps)
    with _dag(schedule.name, schedule.interval, schedule.env, _DOCS.format(name=schedule.name, tasks=tasks)) as dag:
        operators = [_operator(step, schedule.env) for step in schedule.steps]
        for before, after in pairwise(operators):
            before >> after
    return dag


def _operator(step: Step, env: Mapping[str, str]) -> TidemarkOperator:
    return TidemarkOperator(
        task_id=step.name,
        arguments=["run", *step.blocks],
        env=env,
        pool=SOURCE if step.reads_source else NONE if step.only_backs_up else WAREHOUSE,
        doc_md=f"`meltano run {' '.join(step.blocks)}`",
        asset=RAW if step.loads else MARTS if step.tests else None,
    )


_BACKFILL_DOCS = """
Reloads rows of some streams and builds the models on them: all rows, or those with a replication key in a range.
The regular bookmark does not move, and newer rows are not overwritten. Rows that were deleted in the source stay;
`tidemark reconcile --repair` marks them.
"""


def backfill(streams: Sequence[str]) -> DAG:
    """Return the DAG that reloads streams; its form offers `streams`."""
    params = {
        "streams": Param(
            [],
            type="array",
            minItems=1,
            uniqueItems=True,
            items={"type": "string", "pattern": r"^[^-\s]\S*$"},
            examples=list(streams),
            title="Streams",
            description="The streams to reload.",
        ),
        "from": Param(
            None,
            type=["null", "string"],
            title="From",
            description="A value of the replication key, such as 2026-01-01T00:00:00Z. Earlier rows are left out.",
        ),
        "to": Param(
            None,
            type=["null", "string"],
            title="To",
            description="A value of the replication key. It and later rows are left out.",
        ),
        "full_refresh": Param(
            False,  # noqa: FBT003
            type="boolean",
            title="Full refresh",
            description="Reload all rows of these streams, instead of a range.",
        ),
    }
    with _dag("backfill", None, {}, _BACKFILL_DOCS, params=params) as dag:
        load = _backfill_step("extract_load", "load", SOURCE, asset=RAW)
        build = _backfill_step("dbt_run", "build", WAREHOUSE)
        test = _backfill_step("dbt_test", "test", WAREHOUSE, asset=MARTS)
        load >> build >> test
    return dag


def _backfill_step(name: str, step: str, pool: str, **more: Any) -> TidemarkOperator:
    return TidemarkOperator(
        task_id=name,
        arguments=partial(_backfill_arguments, step),
        pool=pool,
        doc_md=f"`tidemark backfill --step {step}`",
        **more,
    )


def _backfill_arguments(step: str, params: Mapping[str, Any]) -> list[str]:
    bounds = [f"--{name}={params[name]}" for name in ("from", "to") if params[name]]
    everything = ["--all"] if params["full_refresh"] else []
    return ["backfill", f"--step={step}", *bounds, *everything, "--", *params["streams"]]


def _dag(name: str, interval: str | None, env: Mapping[str, str], docs: str, **more: Any) -> DAG:
    own = settings.of(name, env)
    return DAG(
        dag_id=name,
        schedule=interval,
        start_date=_START,
        catchup=False,
        max_active_runs=1,
        default_args={
            **own.default_args,
            "on_failure_callback": callbacks.task_failed,
            "on_retry_callback": callbacks.task_retried,
        },
        on_failure_callback=callbacks.run_failed,
        # not based on the logical date, which a run that is started by hand may lack
        deadline=DeadlineAlert(
            reference=DeadlineReference.DAGRUN_QUEUED_AT,
            interval=timedelta(minutes=own.deadline_minutes),
            callback=AsyncCallback(callbacks.deadline_missed, kwargs={"owner": own.owner}),
        ),
        tags=["tidemark"],
        doc_md=docs,
        **more,
    )
