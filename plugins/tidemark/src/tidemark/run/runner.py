"""Runs Meltano blocks: starts Meltano, follows its events to the end, and returns the outcome."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from tidemark.project import database_settings
from tidemark.project.variables import environment
from tidemark.run import failed_streams, meltano_run
from tidemark.run.outcome import BlockOutcome, RunOutcome

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from tidemark.project.database_settings import Source, Warehouse
    from tidemark.project.directory import Project
    from tidemark.run.events import Event


class View(Protocol):
    """Shows a run in progress."""

    def follow(self, events: Iterator[Event], outcome: RunOutcome) -> None:
        """Consume all events, add each to `outcome`, and show the useful ones."""


def run(  # noqa: PLR0913 - each argument has a name
    project: Project,
    blocks: Sequence[BlockOutcome],
    names: Sequence[str],
    *,
    databases: tuple[Sequence[Source], Warehouse],
    run_id: str,
    lock: int,
    view: View,
    more: Mapping[str, str] | None = None,
    save_state: bool = True,
) -> RunOutcome:
    """Run the blocks in order. Each begins after the previous one has succeeded.

    Args:
        blocks: the expected blocks, in order.
        names: the arguments of `meltano run`.
        databases: the sources that the blocks read, and the warehouse.
        run_id: a UUID that all log lines carry.
        lock: the descriptor of the run's lock.
        more: variables for Meltano and its plugins.
        save_state: if false, Meltano neither reads nor changes the state.

    Raises:
        TidemarkError: Meltano is not installed, or does not end.
    """
    outcome = RunOutcome(blocks)
    variables = {**_variables(project, *databases), **(more or {})}
    with meltano_run.run(
        project, names, run_id=run_id, lock=lock, environment=variables, save_state=save_state
    ) as events:
        view.follow(events, outcome)
    failed_streams.record(project, databases[1], outcome.blocks, run_id)
    return outcome


def _variables(project: Project, sources: Sequence[Source], warehouse: Warehouse) -> dict[str, str]:
    """Return the variables with the databases' addresses for Meltano and its plugins."""
    return {
        **{name: value for source in sources for name, value in source.variables().items()},
        **warehouse.variables(),
        **database_settings.transformer_variables(project, warehouse),
        "MELTANO_ENVIRONMENT": environment(project),
    }
