"""Runs Meltano blocks (arguments of `meltano run`) for a scheduler or a service: log lines first, then a report."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from tidemark.errors import UsageError
from tidemark.local import databases
from tidemark.project import database_settings, schedules, sources
from tidemark.project.file_locks import hold
from tidemark.run import failed_streams, runner, source_parts, what_next
from tidemark.run import loads as loading
from tidemark.run.block_names import split
from tidemark.run.logged import logged
from tidemark.run.outcome import BlockOutcome, RunOutcome
from tidemark.run.progress import LineProgress
from tidemark.run.report import RunReport, report_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime

    from tidemark.project.directory import Project
    from tidemark.project.sources import SourceDefinition
    from tidemark.run.progress import Listener


def run(  # noqa: PLR0913 - each argument has a name
    project: Project,
    blocks: Sequence[str],
    *,
    run_id: str,
    say: Listener,
    part: tuple[str, str] | None = None,
    more: Mapping[str, str] | None = None,
    save_state: bool = True,
    moved_since: datetime | None = None,
) -> RunReport:
    """Run the blocks in order. Each begins after the previous one has succeeded.

    If several loads come first, one that fails stops only the models that stand on its source.

    Args:
        part: limits dbt to a part of the models; see `source_parts.only`.
        more: variables for Meltano and its plugins.
        save_state: if false, Meltano neither reads nor changes the state.
        moved_since: see `RunReport`.

    Raises:
        UsageError: the blocks can't run in this order, or a tap selects no stream.
        BusyError: another command is stopping the servers or running the whole pipeline.
        TidemarkError: a database can't be reached or started.
    """
    began = time.monotonic()
    with logged(run_id, blocks) as log:
        try:
            expected = split(blocks)
        except ValueError as error:
            raise UsageError(f"{error}, as in `tidemark run tap-postgres target-postgres`.") from None
        what_next.refuse_without_streams(project, blocks)
        try:
            schedules.refresh(project)
        except UsageError as error:
            # this run needs no schedule
            say("warning", str(error))
        # shared, so that runs may overlap: the warehouse's own locks protect tables and models, on all machines
        with hold(project.pipeline_lock, doing="running the pipeline", shared=True) as lock:
            with failed_streams.recorded(project, expected, run_id):
                limits = source_parts.only(project, *part) if part else {}
                read = sources.of_blocks(project, blocks)
                outcomes, loads = _outcomes(expected, read)
                # a utility of ours looks at all sources, and a server that it started would end with it
                if any(name.startswith("tidemark:") for name in blocks):
                    databases.bring_up(project)
                # before the others are tried: their databases may be on the first one's server
                _, warehouse = databases.bring_up_all(project, [each for each in read if each.first])
                found = [database_settings.source(project, each) for each in loading.try_own(project, loads)]
            failed_streams.record(project, warehouse, loads.values(), run_id)
            for each in loading.failed(loads):
                say("error", f"{loads[each].title} failed: {loads[each].failures[0].message}")
            log.outcome = outcome = RunOutcome(outcomes)

            def meltano(pending: Sequence[BlockOutcome]) -> RunOutcome:
                asked = {**limits, **source_parts.without(loading.failed(loads))}
                return runner.run(
                    project,
                    pending,
                    " ".join(block.names for block in pending).split(),
                    databases=(found, warehouse),
                    run_id=run_id,
                    lock=lock,
                    view=LineProgress(say),
                    more={**(more or {}), **source_parts.variable(asked)},
                    save_state=save_state,
                )

            first = next((place for place, block in enumerate(outcomes) if not block.tap), len(outcomes))
            loading.in_turn(outcome, first, meltano)
            schemas = [each.raw_schema for each in read]
            report = report_of(project, warehouse, log.outcome, run_id=run_id, since=moved_since, schemas=schemas)
    report.seconds = round(time.monotonic() - began, 3)
    return report


def _outcomes(
    names: Sequence[str], read: Sequence[SourceDefinition]
) -> tuple[list[BlockOutcome], dict[SourceDefinition, BlockOutcome]]:
    """Return the blocks, and those among them that load a source."""
    starts = {each.tap: f"{each.name}/" for each in read if len(read) > 1}
    found = [BlockOutcome(name, source=starts.get(name.split()[0], "")) for name in names]
    return found, {each: block for each in read for block in found if block.tap == each.tap}
