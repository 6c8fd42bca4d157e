"""Runs Meltano blocks: takes the run's lock, starts Meltano, follows its events to the end, and keeps the outcome."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from tidemark.errors import UsageError
from tidemark.inspect.check import streams
from tidemark.project import database_settings, meltano_database, resolved_settings, schedules
from tidemark.project.file_locks import hold
from tidemark.project.variables import environment
from tidemark.run import failed_streams, killed_shards, loads, meltano_run, source_parts, what_next
from tidemark.run.block_names import split
from tidemark.run.events import Failure
from tidemark.run.logged import logged
from tidemark.run.outcome import BlockOutcome, RunOutcome

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping, Sequence

    from tidemark.project.database_settings import Source, Warehouse
    from tidemark.project.directory import Project
    from tidemark.project.sources import SourceDefinition
    from tidemark.run.events import Event


class View(Protocol):
    """Shows a run in progress."""

    def follow(self, events: Iterator[Event], outcome: RunOutcome) -> None:
        """Consume all events, add each to `outcome`, and show the useful ones."""


@dataclass(frozen=True)
class RunPlan:
    """What a run does, and the databases that it works on, which answer.

    Attributes:
        blocks: the expected blocks, in order.
        loads: the block of each source that is loaded. It has failed already if the source is unreachable.
        databases: the other sources, and the warehouse.
        limits: limits dbt to a part of the models; see `source_parts.only`.
    """

    blocks: Sequence[BlockOutcome]
    loads: Mapping[SourceDefinition, BlockOutcome]
    databases: tuple[Sequence[Source], Warehouse]
    limits: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True)
class StartedRun:
    """A run that has begun.

    Attributes:
        run_id: a UUID that all log lines carry.
        outcome: what happened so far.
        lock: the descriptor of the run's lock.
    """

    project: Project
    run_id: str
    plan: RunPlan
    outcome: RunOutcome
    lock: int

    def run(
        self, view: View, *, more: Mapping[str, str] | None = None, save_state: bool = True, apart: bool = False
    ) -> None:
        """Run the blocks in order. Each begins after the previous one has succeeded.

        If several loads come first, one that fails stops only the models that stand on its source.

        Args:
            more: variables for Meltano and its plugins.
            save_state: if false, Meltano neither reads nor changes the state.
            apart: see `meltano_run.run`.

        Raises:
            TidemarkError: Meltano is not installed, or does not end.
        """

        def meltano(pending: Sequence[BlockOutcome]) -> RunOutcome:
            asked = {**self.plan.limits, **source_parts.without(loads.failed(self.plan.loads))}
            variables = {**(more or {}), **source_parts.variable(asked)}
            return self._meltano(pending, view, variables, save_state=save_state, apart=apart)

        if save_state:
            for source, block in self.plan.loads.items():
                if block.success is None:
                    killed_shards.adopt(self.project, source, self.plan.databases[1])
        blocks = self.outcome.blocks
        first = next((place for place, block in enumerate(blocks) if not block.tap), len(blocks))
        loads.in_turn(self.outcome, first, meltano)

    def load(
        self, view: View, *, streams: Collection[str], more: Mapping[str, str], save_state: bool = True
    ) -> BlockOutcome:
        """Run the only block, a load, for some of its streams. Add its rows to the outcome, and return its own.

        Args:
            more: variables for Meltano and its plugins.
            save_state: if false, Meltano neither reads nor changes the state.
        """
        (whole,) = self.outcome.blocks
        block = BlockOutcome(whole.names, whole.title, source=whole.source, streams=frozenset(streams))
        self.outcome.add(self._meltano([block], view, more, save_state=save_state, apart=False))
        return block

    def _meltano(
        self,
        pending: Sequence[BlockOutcome],
        view: View,
        more: Mapping[str, str],
        *,
        save_state: bool,
        apart: bool,
    ) -> RunOutcome:
        outcome = RunOutcome(pending)
        names = " ".join(block.names for block in pending).split()
        variables = {**_variables(self.project, *self.plan.databases), **more}
        with meltano_run.run(
            self.project,
            names,
            run_id=self.run_id,
            lock=self.lock,
            environment=variables,
            save_state=save_state,
            apart=apart,
        ) as events:
            view.follow(events, outcome)
        self._explain(pending)
        failed_streams.record(self.project, self.plan.databases[1], outcome.blocks, self.run_id)
        return outcome

    def _explain(self, pending: Sequence[BlockOutcome]) -> None:
        """Say which setting Meltano could not read, if that is why a load failed: its own error names none."""
        ended = next((block for block in pending if not block.success), None)
        for source, block in self.plan.loads.items():
            if block is ended and not block.failures:
                try:
                    streams.configuration(self.project, source)
                except UsageError as error:
                    block.failures.append(Failure.of(error))


@contextmanager
def started(  # noqa: PLR0913 - each argument has a name
    project: Project,
    arguments: Sequence[str],
    plan: Callable[[list[str]], RunPlan],
    *,
    run_id: str,
    warn: Callable[[str], None],
    alone: bool = False,
) -> Iterator[StartedRun]:
    """Begin a run: log it, take its lock, and open its databases. The run ends with the `with` block.

    Args:
        arguments: those of `meltano run`.
        plan: opens the databases, and returns what to run on them. It gets the names of the blocks. Its error is
            recorded in the history of the streams.
        warn: told about what does not stop the run.
        alone: keep other runs out; by default runs may overlap, because the warehouse's own locks protect tables and
            models, on all machines.

    Raises:
        UsageError: the blocks can't run in this order, or a tap selects no stream.
        BusyError: another command is stopping the servers or running the whole pipeline.
        TidemarkError: a database can't be reached or started.
    """
    with logged(run_id, arguments) as log:
        try:
            names = split(arguments)
        except ValueError as error:
            raise UsageError(f"{error}, as in `tidemark run tap-postgres target-postgres`.") from None
        what_next.refuse_without_streams(project, arguments)
        try:
            schedules.refresh(project)
        except UsageError as error:
            # a run needs no schedule
            warn(str(error))
        with hold(project.pipeline_lock, doing="running the pipeline", shared=not alone) as lock:
            with failed_streams.recorded(project, names, run_id):
                if file := meltano_database.file_of(project, resolved_settings.database_uri(project)):
                    meltano_database.make(file)
                planned = plan(names)
            failed_streams.record(project, planned.databases[1], planned.loads.values(), run_id)
            log.outcome = RunOutcome(planned.blocks)
            yield StartedRun(project, run_id, planned, log.outcome, lock)


def _variables(project: Project, sources: Sequence[Source], warehouse: Warehouse) -> dict[str, str]:
    """Return the variables with the databases' addresses for Meltano and its plugins."""
    return {
        **{name: value for source in sources for name, value in source.variables().items()},
        **warehouse.variables(),
        **database_settings.transformer_variables(project, warehouse),
        "MELTANO_ENVIRONMENT": environment(project),
    }
