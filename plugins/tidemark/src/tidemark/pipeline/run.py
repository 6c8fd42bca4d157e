"""One run of the whole job, from servers to summary."""

from __future__ import annotations

import time
import uuid
from typing import TYPE_CHECKING

from tidemark import databases, demo
from tidemark.connections import connect
from tidemark.errors import TidemarkError
from tidemark.locks import hold
from tidemark.pipeline import counts, meltano, report, state
from tidemark.pipeline.display import Display
from tidemark.pipeline.events import BlockDone, NodeDone, Totals
from tidemark.pipeline.outcome import Outcome

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rich.console import Console

    from tidemark.pipeline.events import Event
    from tidemark.project import Project
    from tidemark.settings import Source, Warehouse

# what `meltano run` gets, and what each block is called on the screen
_BLOCKS = {
    f"{state.TAP} {state.TARGET}": "Extract and load",
    "dbt-postgres:run": "Build models",
    "dbt-postgres:test": "Test",
}
_DEMO_SCALE = 0.01


def run(project: Project, console: Console, *, scale: float | None = None) -> None:
    """Run the whole job once.

    Args:
        scale: of the demo shop, should this run be the one that loads it.

    Raises:
        BusyError: another run is under way.
        TidemarkError: something failed; the message says what and where to look.
    """
    began = time.monotonic()
    with hold(project.state_dir / "pipeline.lock", doing="running the pipeline") as lock:
        display = Display(console)
        source, warehouse = _databases(project, display, scale)
        bookmarks, before = _before(project, source, warehouse)
        outcome = _meltano(project, display, lock)
        with connect(warehouse) as connection:
            after = counts.count(connection, warehouse.default_target_schema, outcome.read, bookmarks)
        reports = report.stream_reports(outcome, before, after, state.bookmarks(project))
        report.show(console, outcome, reports, seconds=time.monotonic() - began, next_steps=_next(source))


def _databases(project: Project, display: Display, scale: float | None) -> tuple[Source, Warehouse]:
    """Bring both databases up. Those of the user are tried first, so that nothing is made if one can't be had."""
    databases.try_own(project)
    with display.step("Servers") as step:
        source, warehouse = databases.bring_up(project)
        step.say(f"{source.address}:{source.port} → {warehouse.address}:{warehouse.port}")
    if source.embedded:
        with connect(source) as connection:
            found, others = demo.loaded_scale(connection), demo.tables(connection)
        if found is None and not others:
            with display.step("Demo shop") as step:
                demo.load(project, source, scale=scale or _DEMO_SCALE)
                step.say(f"loaded at scale {scale or _DEMO_SCALE:g}")
        elif found is not None and scale is not None:
            # finds it there, or says what to do about the other scale
            demo.load(project, source, scale=scale)
    return source, warehouse


def _before(
    project: Project, source: Source, warehouse: Warehouse
) -> tuple[dict[str, state.Bookmark], dict[str, counts.Count]]:
    """Return the bookmarks and counts before the run, having made sure that they belong together.

    Raises:
        TidemarkError: the state is ahead of the data, so that a run would skip rows.
    """
    bookmarks = state.bookmarks(project)
    with connect(source) as source_connection, connect(warehouse) as connection:
        identities = {
            "source": state.identity(source, source_connection),
            "warehouse": state.identity(warehouse, connection),
        }
        state.guard(project, identities, has_state=bool(bookmarks))
        before = counts.count(connection, warehouse.default_target_schema, bookmarks, bookmarks)
    for stream, bookmark in bookmarks.items():
        if before.get(stream, counts.Count()).rows == 0:
            raise TidemarkError(
                f"Meltano's state says that {stream} was read up to {bookmark.value}, and the {warehouse} holds none "
                f"of its rows; load everything again: {state.clear_command(project)}, then run this again."
            )
    return bookmarks, before


def _meltano(project: Project, display: Display, lock: int) -> Outcome:
    """Run Meltano and show it.

    Raises:
        TidemarkError: a block failed.
    """
    run_id = str(uuid.uuid4())
    outcome = Outcome(list(_BLOCKS.values()))
    with meltano.run(project, " ".join(_BLOCKS).split(), run_id=run_id, inherit=lock) as events:
        for index in range(len(outcome.blocks)):
            if outcome.failed is None:
                _follow(display, index, events, outcome)
    if not outcome.ended_well:
        raise TidemarkError(
            f"{outcome.culprit.title} failed: {outcome.reason()}. "
            f"All that was logged: grep {run_id} {project.run_log.relative_to(project.root)}"
        )
    return outcome


def _follow(display: Display, index: int, events: Iterator[Event], outcome: Outcome) -> None:
    """Show one block until it ends."""
    block = outcome.blocks[index]
    with display.step(block.title) as step:
        for event in events:
            outcome.take(event)
            if isinstance(event, NodeDone):
                step.say(f"{event.index} of {event.total}")
            elif isinstance(event, Totals):
                step.say(f"{event.passed} of {event.passed + event.warned + event.failed + event.skipped}")
            elif isinstance(event, BlockDone):
                break
            elif index == 0 and outcome.read:
                step.say(f"{sum(outcome.read.values()):,} rows of {len(outcome.read)} streams")
        # neither: it ended without saying so
        block.success = bool(block.success)
        step.failed = not block.success


def _next(source: Source) -> list[str]:
    """Return three commands worth trying after a run."""
    first = "make demo-change pipeline     # a day's traffic in the shop, then its load"
    own = "make pipeline                 # again: only what changed is read"
    return [
        first if source.embedded else own,
        ".venv/bin/tidemark psql warehouse   # try: table marts.fct_sales limit 5;",
        "make docs                     # the models, columns and lineage in a browser",
    ]
