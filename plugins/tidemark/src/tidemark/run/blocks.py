"""Runs Meltano blocks (arguments of `meltano run`) for a scheduler or a service: log lines first, then a report."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from tidemark.errors import UsageError
from tidemark.local import databases
from tidemark.project import sources
from tidemark.project.file_locks import hold
from tidemark.run import failed_streams, runner
from tidemark.run.block_names import split
from tidemark.run.logged import logged
from tidemark.run.outcome import BlockOutcome
from tidemark.run.progress import LineProgress
from tidemark.run.report import RunReport, report_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime

    from tidemark.project.directory import Project
    from tidemark.run.progress import Listener


def run(  # noqa: PLR0913 - each argument has a name
    project: Project,
    blocks: Sequence[str],
    *,
    run_id: str,
    say: Listener,
    more: Mapping[str, str] | None = None,
    save_state: bool = True,
    moved_since: datetime | None = None,
) -> RunReport:
    """Run the blocks in order. Each begins after the previous one has succeeded.

    Args:
        more: variables for Meltano and its plugins.
        save_state: if false, Meltano neither reads nor changes the state.
        moved_since: see `RunReport`.

    Raises:
        UsageError: the blocks can't run in this order.
        BusyError: another command is stopping the servers or running the whole pipeline.
        TidemarkError: a database can't be reached or started.
    """
    began = time.monotonic()
    with logged(run_id, blocks) as log:
        try:
            expected = split(blocks)
        except ValueError as error:
            raise UsageError(f"{error}, as in `tidemark run tap-postgres target-postgres`.") from None
        # shared, so that runs may overlap: the warehouse's own locks protect tables and models, on all machines
        with hold(project.pipeline_lock, doing="running the pipeline", shared=True) as lock:
            with failed_streams.recorded(project, expected, run_id):
                read = sources.of_blocks(project, blocks)
                # a utility of ours looks at all sources, and a server that it started would end with it
                utilities = any(name.startswith("tidemark:") for name in blocks)
                if utilities:
                    databases.bring_up(project)
                found, warehouse = databases.bring_up_all(project, read)
                databases.try_own(project, read)
            several = len(read) > 1
            names = {each.tap: f"{each.name}/" for each in read if several}
            log.outcome = runner.run(
                project,
                [BlockOutcome(name, source=names.get(name.split()[0], "")) for name in expected],
                blocks,
                databases=(found, warehouse),
                run_id=run_id,
                lock=lock,
                view=LineProgress(say),
                more=more,
                save_state=save_state,
            )
            schemas = [each.raw_schema for each in read]
            report = report_of(project, warehouse, log.outcome, run_id=run_id, since=moved_since, schemas=schemas)
    report.seconds = round(time.monotonic() - began, 3)
    return report
