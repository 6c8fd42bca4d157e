"""One run of the whole job, from servers to summary."""

from __future__ import annotations

import time
import uuid
from typing import TYPE_CHECKING

from tidemark.errors import UsageError
from tidemark.local import databases, demo
from tidemark.project import demo_files
from tidemark.project import meltano_state as state
from tidemark.project.connections import connect
from tidemark.project.file_locks import hold
from tidemark.run import failed_streams, runner, summary, what_next
from tidemark.run.display import Display
from tidemark.run.errors import RunFailedError
from tidemark.run.logged import logged
from tidemark.run.outcome import BlockOutcome, RunOutcome
from tidemark.run.progress import StepProgress

if TYPE_CHECKING:
    from rich.console import Console

    from tidemark.project.database_settings import Source, Warehouse
    from tidemark.project.directory import Project

# by argument of `meltano run`: the Meltano block's title on the screen, and what its counts of dbt nodes mean
_BLOCKS = {
    f"{state.TAP} {state.TARGET}": ("Extract and load", ""),
    "dbt-postgres:run": ("Build models", "models built"),
    "dbt-postgres:test": ("Test", "tests passed"),
}
_DEMO_SCALE = 0.01


def run(project: Project, console: Console, *, scale: float | None = None) -> None:
    """Run the whole job once.

    Args:
        scale: the scale of the demo shop, if this run loads it.

    Raises:
        BusyError: another run is active.
        RunFailedError: something failed. The message says what failed, and where to look.
    """
    what_next.refuse_without_streams(project)
    began = time.monotonic()
    run_id = str(uuid.uuid4())
    with (
        logged(run_id, " ".join(_BLOCKS).split()) as log,
        hold(project.pipeline_lock, doing="running the pipeline") as lock,
    ):
        display = Display(console)
        with failed_streams.recorded(project, _BLOCKS, run_id):
            source, warehouse = _databases(project, display, scale)
        log.outcome = outcome = _meltano(project, display, lock, source, warehouse, run_id)
        if not outcome.ended_well:
            raise _failed(project, outcome, run_id)
        reports = summary.stream_reports(outcome, state.bookmarks(project))
        summary.show(
            console, outcome, reports, seconds=time.monotonic() - began, next_steps=_next(project, source, outcome)
        )
    if outcome.missing:
        raise _failed(project, outcome, run_id)


def _databases(project: Project, display: Display, scale: float | None) -> tuple[Source, Warehouse]:
    """Start both databases. Test the user's own databases first, so that nothing is created if one is unreachable."""
    databases.try_own(project)
    with display.step("Servers") as step:
        source, warehouse = databases.bring_up(project)
        step.say(f"{source.address}:{source.port} → {warehouse.address}:{warehouse.port}")
    if not source.embedded:
        if scale is not None:
            raise UsageError(f"The {source} is your own; --scale (SCALE in make) is only for the demo shop: omit it.")
        return source, warehouse
    with connect(source) as connection:
        found, others = demo.loaded(connection), demo.tables(connection)
    if found is None and not others and (scale is not None or demo_files.installed(project)):
        with display.step("Demo shop") as step:
            demo.load(project, source, scale=scale or _DEMO_SCALE)
            step.say(f"loaded at scale {scale or _DEMO_SCALE:g}")
    elif scale is not None:
        # this finds the shop there, or raises with the reason why it can't be loaded
        demo.load(project, source, scale=scale)
    return source, warehouse


def _meltano(  # noqa: PLR0913, PLR0917 - a run's parts
    project: Project, display: Display, lock: int, source: Source, warehouse: Warehouse, run_id: str
) -> RunOutcome:
    """Run Meltano and show it.

    Raises:
        BusyError: a run on another machine is loading into the warehouse.
        TidemarkError: Meltano can't run.
    """
    return runner.run(
        project,
        [BlockOutcome(names, title, counted) for names, (title, counted) in _BLOCKS.items()],
        " ".join(_BLOCKS).split(),
        databases=(source, warehouse),
        run_id=run_id,
        lock=lock,
        view=StepProgress(display),
    )


def _failed(project: Project, outcome: RunOutcome, run_id: str) -> RunFailedError:
    """Return the error of a failed run."""
    failure = outcome.failure()
    assert failure
    why = failure.message.rstrip(".")
    if not outcome.rows:
        why = f"no stream was read ({why}); see `select` and filter_schemas in extract/extractors.meltano.yml"
    log = project.run_log
    log = log.relative_to(project.root) if log.is_relative_to(project.root) else log
    return RunFailedError(
        f"{outcome.culprit.title} failed: {why}. Full log: grep {run_id} {log}. What to do: "
        f"docs/runbook.md#{failure.code}",
        failure,
    )


def _next(project: Project, source: Source, outcome: RunOutcome) -> list[str]:
    with_shop = source.embedded and demo_files.installed(project)
    return what_next.after_a_run(project, with_shop=with_shop, streams=outcome.rows)
