"""Runs Meltano blocks (arguments of `meltano run`) for a scheduler or a service: log lines first, then a report."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from tidemark.errors import UsageError
from tidemark.local import databases
from tidemark.project import database_settings, sources
from tidemark.run import loads as loading
from tidemark.run import source_parts
from tidemark.run.outcome import BlockOutcome
from tidemark.run.progress import LineProgress
from tidemark.run.report import RunReport, report_of
from tidemark.run.runner import RunPlan, View, started

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime

    from tidemark.project.directory import Project
    from tidemark.project.sources import SourceDefinition
    from tidemark.run.progress import Listener

# commands that have an option --source
_OF_ONE_SOURCE = ("tidemark:reconcile", "tidemark:check")


def run(  # noqa: PLR0913 - each argument has a name
    project: Project,
    blocks: Sequence[str],
    *,
    run_id: str,
    say: Listener,
    part: tuple[str, str] | None = None,
    source: str | None = None,
    more: Mapping[str, str] | None = None,
    save_state: bool = True,
    moved_since: datetime | None = None,
    view: View | None = None,
    apart: bool = False,
) -> RunReport:
    """Run the blocks in order. Each begins after the previous one has succeeded.

    If several loads come first, one that fails stops only the models that stand on its source.

    Args:
        part: limits dbt to a part of the models; see `source_parts.only`.
        source: the only source that the blocks look at, which are commands of ours.
        more: variables for Meltano and its plugins.
        save_state: if false, Meltano neither reads nor changes the state.
        moved_since: see `RunReport`.
        view: shows the run in place of lines for `say`.
        apart: see `meltano_run.run`.

    Raises:
        UsageError: the blocks can't run in this order, or a tap selects no stream.
        BusyError: another command is stopping the servers or running the whole pipeline.
        TidemarkError: a database can't be reached or started.
    """
    began = time.monotonic()

    def plan(names: list[str]) -> RunPlan:
        limits = source_parts.only(project, *part) if part else {}
        if source:
            _refuse_source(project, names, source)
        read = sources.of_blocks(project, blocks)
        found_blocks, loads = outcomes(names, read)
        # a utility of ours looks at all sources, and a server that it started would end with it
        if any(name.startswith("tidemark:") for name in names):
            databases.bring_up(project)
        # before the others are tried: their databases may be on the first one's server
        _, warehouse = databases.bring_up_all(project, [each for each in read if each.first])
        found = [database_settings.source(project, each) for each in loading.try_own(project, loads)]
        return RunPlan(found_blocks, loads, (found, warehouse), limits)

    with started(project, blocks, plan, run_id=run_id, warn=lambda text: say("warning", text)) as begun:
        for each in loading.failed(begun.plan.loads):
            failed = begun.plan.loads[each]
            say("error", f"{failed.title} failed: {failed.failures[0].message}")
        more = {**(more or {}), **({sources.ONLY: source} if source else {})}
        begun.run(view or LineProgress(say), more=more, save_state=save_state, apart=apart)
        schemas = [each.raw_schema for each in begun.plan.loads]
        warehouse = begun.plan.databases[1]
        report = report_of(project, warehouse, begun.outcome, run_id=run_id, since=moved_since, schemas=schemas)
    report.seconds = round(time.monotonic() - began, 3)
    return report


def _refuse_source(project: Project, names: Sequence[str], source: str) -> None:
    """Raise if the blocks can't be limited to a source.

    Raises:
        UsageError: see above; or there is no such source.
    """
    if others := [name for name in names if name not in _OF_ONE_SOURCE]:
        raise UsageError(
            f"--source is for {' and '.join(_OF_ONE_SOURCE)}, not for {others[0]}: a load has its source in the names "
            "of its tap and target, and --part takes the models of a source."
        )
    sources.chosen(project, source)


def outcomes(
    names: Sequence[str], read: Sequence[SourceDefinition]
) -> tuple[list[BlockOutcome], dict[SourceDefinition, BlockOutcome]]:
    """Return the blocks, and those among them that load a source."""
    starts = {each.tap: f"{each.name}/" for each in read if len(read) > 1}
    found = [BlockOutcome(name, source=starts.get(name.split()[0], "")) for name in names]
    return found, {each: block for each in read for block in found if block.tap == each.tap}
