"""One run of the whole job, from servers to summary."""

from __future__ import annotations

import time
import uuid
from typing import TYPE_CHECKING

from tidemark.errors import UsageError
from tidemark.local import databases, demo
from tidemark.project import demo_files, sources
from tidemark.project import meltano_state as state
from tidemark.project.connections import connect
from tidemark.run import loads as loading
from tidemark.run import summary, what_next
from tidemark.run.display import Display
from tidemark.run.errors import RunFailedError
from tidemark.run.outcome import BlockOutcome
from tidemark.run.progress import StepProgress
from tidemark.run.runner import RunPlan, started

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from rich.console import Console

    from tidemark.project.database_settings import Source, Warehouse
    from tidemark.project.directory import Project
    from tidemark.project.sources import SourceDefinition
    from tidemark.run.outcome import RunOutcome

# by argument of `meltano run`: the Meltano block's title on the screen, and what its counts of dbt nodes mean
_MODELS = {
    "dbt-postgres:run": ("Build models", "models built"),
    "dbt-postgres:test": ("Test", "tests passed"),
}
_DEMO_SCALE = 0.01


def run(project: Project, console: Console, *, scale: float | None = None) -> None:
    """Run the whole job once: all sources, one after the other, then the models and their tests.

    A source that fails stops only the models that stand on it. One without streams is left out.

    Args:
        scale: the scale of the demo shop, if this run loads it.

    Raises:
        BusyError: another run is active.
        RunFailedError: something failed. The message says what failed, and where to look.
    """
    what_next.refuse_without_streams(project)
    began = time.monotonic()
    run_id = str(uuid.uuid4())
    display = Display(console)
    in_use = sources.chosen(project, None)
    read = [each for each in in_use if not what_next.selects_nothing(project, each.tap)]
    loads = {each: _load(each) for each in read}
    models = [BlockOutcome(name, title, counted) for name, (title, counted) in _MODELS.items()]
    blocks = [*loads.values(), *models]

    def plan(_: list[str]) -> RunPlan:
        for each in in_use:
            if each not in read:
                display.nothing(_load(each).title, what_next.nothing_selected(each))
        return RunPlan(blocks, loads, _databases(project, display, loads, scale))

    def warn(text: str) -> None:
        console.print(f"! {text}", style="yellow", soft_wrap=True, markup=False)

    arguments = " ".join(block.names for block in blocks).split()
    with started(project, arguments, plan, run_id=run_id, warn=warn, alone=True) as begun:
        begun.run(StepProgress(display))
        outcome = begun.outcome
        if outcome.rows and (outcome.ended_well or len(read) > 1):
            bookmarks = {
                f"{block.source}{stream}": bookmark
                for each, block in loads.items()
                for stream, bookmark in state.bookmarks(project, each).items()
            }
            reports = summary.stream_reports(outcome, bookmarks)
            next_steps = _next(project, begun.plan.databases[0], outcome) if outcome.ended_well else []
            summary.show(console, outcome, reports, seconds=time.monotonic() - began, next_steps=next_steps)
    if not outcome.ended_well or outcome.missing:
        path = next((each.path for each, block in loads.items() if block is outcome.culprit), read[0].path)
        raise _failed(project, outcome, run_id, path)


def _load(source: SourceDefinition) -> BlockOutcome:
    if source.alone:
        return BlockOutcome(source.blocks, "Extract and load")
    return BlockOutcome(source.blocks, f"Load {source.name}", source=f"{source.name}/")


def _databases(
    project: Project, display: Display, loads: Mapping[SourceDefinition, BlockOutcome], scale: float | None
) -> tuple[list[Source], Warehouse]:
    """Start the databases. Test the user's own databases first, so that nothing is created if one is unreachable.

    If one of several sources is unreachable, its load has failed, and the others go on.
    """
    usable = loading.try_own(project, loads)
    for each in loading.failed(loads):
        display.failure(loads[each].title, loads[each].failures[0].message)
    with display.step("Servers") as step:
        found, warehouse = databases.bring_up_all(project, usable)
        step.say(f"{', '.join(f'{each.address}:{each.port}' for each in found)} → {warehouse.address}:{warehouse.port}")
    first = next((each for each, definition in zip(found, usable, strict=True) if definition.first), None)
    if first is None or not first.embedded:
        if scale is not None:
            which = f"The {first} is your own" if first else "The shop is in no source of this project"
            raise UsageError(f"{which}; --scale (SCALE in make) is only for the demo shop: omit it.")
        return found, warehouse
    _fill(project, display, first, scale)
    return found, warehouse


def _fill(project: Project, display: Display, source: Source, scale: float | None) -> None:
    """Load the demo shop into an empty source of ours."""
    with connect(source) as connection:
        found, others = demo.loaded(connection), demo.tables(connection)
    if found is None and not others and (scale is not None or demo_files.installed(project)):
        with display.step("Demo shop") as step:
            demo.load(project, source, scale=scale or _DEMO_SCALE)
            step.say(f"loaded at scale {scale or _DEMO_SCALE:g}")
    elif scale is not None:
        # this finds the shop there, or raises with the reason why it can't be loaded
        demo.load(project, source, scale=scale)


def _failed(project: Project, outcome: RunOutcome, run_id: str, path: str) -> RunFailedError:
    """Return the error of a failed run.

    Args:
        path: the file in which streams are selected.
    """
    failure = outcome.failure()
    assert failure
    why = failure.message.rstrip(".")
    if not outcome.rows:
        why = f"no stream was read ({why}); see `select` and filter_schemas in {path}"
    log = project.run_log
    log = log.relative_to(project.root) if log.is_relative_to(project.root) else log
    others = [block.title for block in outcome.blocks if block.success is False and block is not outcome.culprit]
    also = f"; {', '.join(others)} failed too" if others else ""
    return RunFailedError(
        f"{outcome.culprit.title} failed: {why}{also}. Full log: grep {run_id} {log}. What to do: "
        f"docs/runbook.md#{failure.code}",
        failure,
    )


def _next(project: Project, settings: Sequence[Source], outcome: RunOutcome) -> list[str]:
    """Return commands to try after a run."""
    with_shop = any(source.embedded for source in settings) and demo_files.installed(project)
    return what_next.after_a_run(project, with_shop=with_shop, streams=outcome.rows)
