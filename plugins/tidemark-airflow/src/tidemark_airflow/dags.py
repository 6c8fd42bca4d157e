"""Makes DAGs: one for each of Meltano's schedules, and one that reloads selected streams."""

from __future__ import annotations

from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING, Any

import pendulum
from airflow.sdk import DAG, AsyncCallback, DeadlineAlert, DeadlineReference, Param

from tidemark_airflow import pools, settings, shared_load
from tidemark_airflow.alerts import callbacks
from tidemark_airflow.assets import MARTS, RAW
from tidemark_airflow.operator import TidemarkOperator
from tidemark_airflow.shared_load import LoadedOperator
from tidemark_airflow.steps import task_name

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from airflow.sdk.definitions.mappedoperator import MappedOperator

    from tidemark_airflow.schedules import Schedule, Source
    from tidemark_airflow.steps import Step

# any day in the past; there is no catch-up
_START = pendulum.datetime(2024, 1, 1, tz="UTC")
_DOCS = """
This DAG comes from the schedule `{name}` in orchestrate/. Its tasks, in order:

{tasks}

Each task is one `tidemark run` of these blocks, and its log has the lines of that run. A run that ends at any point
loses no row and doubles none: the next run continues from what the warehouse has. Sources are loaded side by side. A
task with `--part` builds or tests what stands on these sources, and one with `--source` compares that source alone, so
that a source that fails stops nothing else.
[What to do when a task fails](docs/runbook.md).
"""


def of_schedule(schedule: Schedule) -> DAG:
    """Return the DAG of a schedule.

    Raises:
        ValueError: its env has an invalid setting.
    """
    tasks = "\n".join(f"- **{step.name}**: `{' '.join([*step.options, *step.blocks])}`" for step in schedule.steps)
    with _dag(schedule.name, schedule.interval, schedule.env, _DOCS.format(name=schedule.name, tasks=tasks)) as dag:
        operators: dict[str, tuple[Any, Any]] = {}
        for step in schedule.steps:
            first, last = _shared(step, schedule.env) if step.shards > 1 else (_operator(step, schedule.env),) * 2
            operators[step.name] = first, last
            for before in step.after:
                operators[before][1] >> first
    return dag


def _operator(step: Step, env: Mapping[str, str]) -> TidemarkOperator:
    reading = pools.of_source(step.source) if step.reads_source else None
    return TidemarkOperator(
        task_id=step.name,
        arguments=["run", *step.options, *step.blocks],
        env=env,
        pool=reading or (pools.NONE if step.is_apart else pools.WAREHOUSE),
        pool_slots=step.slots,
        doc_md=f"`tidemark run {' '.join([*step.options, *step.blocks])}`",
        asset=RAW if step.loads else MARTS if step.tests else None,
        part=step.part,
    )


def _shared(step: Step, env: Mapping[str, str]) -> tuple[MappedOperator, LoadedOperator]:
    """Return the task of a load that several runs share, and the one after all of them."""
    mapped = TidemarkOperator.partial(
        task_id=step.name,
        env=env,
        pool=pools.of_source(step.source),
        pool_slots=step.slots,
        doc_md=f"`tidemark run --shard=N/{step.shards} {' '.join(step.blocks)}`",
        map_index_template=f"{{{{ ti.map_index + 1 }}}}/{step.shards}",
        asset=RAW,
        part=step.part,
        tells=False,
        # of a mapped task, Airflow does not ask the operator for them
        inlets=[RAW],
    ).expand(arguments=shared_load.arguments(step.blocks, step.shards))
    loaded = LoadedOperator(
        task_id=f"{step.name}_done",
        reports=mapped.output,
        asset=RAW,
        part=step.part,
        doc_md="Tells other DAGs that rows of raw moved.",
    )
    return mapped, loaded


_BACKFILL_DOCS = """
Reloads rows of some streams and builds the models on them: all rows, or those with a replication key in a range.
The regular bookmark does not move, and newer rows are not overwritten. Rows that were deleted in the source stay;
`tidemark reconcile --repair` marks them.
"""


def backfill(sources: Sequence[Source]) -> DAG:
    """Return the DAG that reloads streams of these sources; its form offers them.

    If there are several sources, each has its own task for the load, which is skipped if no stream of it is named.
    """
    used = [each for each in sources if not each.retired]
    params = {
        "streams": Param(
            [],
            type="array",
            minItems=1,
            uniqueItems=True,
            items={"type": "string", "pattern": r"^[^-\s]\S*$"},
            examples=[stream for source in used for stream in source.streams],
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
        names = [each.name for each in used] if len(used) > 1 else [""]
        slots = [each.slots for each in used] or [1]
        loads = [
            _backfill_load(name, names[1:] if place == 0 else None, slots[place]) for place, name in enumerate(names)
        ]
        build = _backfill_step("dbt_run", "build", trigger_rule="none_failed_min_one_success")
        test = _backfill_step("dbt_test", "test", asset=MARTS)
        loads >> build >> test
    return dag


def _backfill_load(source: str, others: Sequence[str] | None, slots: int) -> TidemarkOperator:
    return _backfill_step(
        task_name(("tap", "target"), source) if source else "extract_load",
        "load",
        arguments=partial(_backfill_arguments, "load", source=source, others=others),
        pool=pools.of_source(source or None),
        pool_slots=slots,
        asset=RAW,
        part=source,
    )


def _backfill_step(name: str, step: str, **more: Any) -> TidemarkOperator:
    usual = {"arguments": partial(_backfill_arguments, step), "pool": pools.WAREHOUSE}
    return TidemarkOperator(task_id=name, doc_md=f"`tidemark backfill --step {step}`", **{**usual, **more})


def _backfill_arguments(
    step: str, params: Mapping[str, Any], *, source: str = "", others: Sequence[str] | None = None
) -> list[str]:
    """Return the command's arguments; an empty list if none of the streams is meant.

    Args:
        source: take only streams of this source, such as `crm/public-contacts`; empty for all streams.
        others: take all streams but those of these sources: the command finds the source of a stream, or refuses it.
    """
    if others is None:
        named = [stream for stream in params["streams"] if not source or stream.startswith(f"{source}/")]
    else:
        named = [stream for stream in params["streams"] if stream.partition("/")[0] not in others or "/" not in stream]
    bounds = [f"--{name}={params[name]}" for name in ("from", "to") if params[name]]
    everything = ["--all"] if params["full_refresh"] else []
    return ["backfill", f"--step={step}", *bounds, *everything, "--", *named] if named else []


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
