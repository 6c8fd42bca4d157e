"""`tidemark run --shard 2/4`: one of several runs, on any machines, that share the load of a source.

Each run loads streams of its own (`shard_plan`), and then parts of first loads that all runs share (`shared_loads`).
All that they know of each other is in the warehouse. A run that is killed loses its locks there, and others take over.
"""

from __future__ import annotations

import time
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import psycopg

from singer_postgres.core import advisory_locks
from singer_postgres.core.errors import TableChangedError
from singer_postgres.core.source.selected_streams import Pattern
from singer_postgres.core.warehouse import tables
from singer_postgres.core.warehouse.connections import WarehouseConnector
from singer_postgres.core.warehouse.shard_plan import ShardPlan
from tidemark.errors import BusyError, UsageError
from tidemark.inspect.reconcile.pairing import Endpoints
from tidemark.project import (
    connections,
    database_settings,
    meltano_database,
    meltano_project,
    meltano_state,
    resolved_settings,
    sources,
    state_lock,
    work_dir,
)
from tidemark.run import blocks, killed_shards, stream_sizes
from tidemark.run.progress import LineProgress
from tidemark.run.report import report_of
from tidemark.run.runner import RunPlan, started
from tidemark.run.shared_loads import SharedLoads

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping, Sequence
    from contextlib import AbstractContextManager
    from datetime import datetime

    from singer_postgres.core.warehouse.load_parts import SharedLoad
    from tidemark.project.directory import Project
    from tidemark.project.sources import SourceDefinition
    from tidemark.run.outcome import BlockOutcome
    from tidemark.run.progress import Listener
    from tidemark.run.report import RunReport
    from tidemark.run.runner import StartedRun
    from tidemark.run.shard import Shard
    from tidemark.run.shared_loads import ClaimedPart

    Connection = psycopg.Connection[Any]

# the longest wait for others that plan
_PLANNING_S = 300
_SEVERAL = 2
# the setting that limits how fast a tap reads
_CEILING = "max_source_mb_per_s"
# how long this waits before it looks again for a part, or for the end of the others
_POLL_S = 1.0


def run(  # noqa: PLR0913 - each argument has a name
    project: Project,
    arguments: Sequence[str],
    shard: Shard,
    *,
    run_id: str,
    say: Listener,
    moved_since: datetime | None = None,
) -> RunReport:
    """Load a shard of a source.

    Args:
        arguments: the source's tap and target.
        moved_since: see `RunReport`.

    Raises:
        UsageError: these are not a tap and target of ours.
        BusyError: the same shard is being loaded.
        TidemarkError: a database can't be reached or used.
    """
    began = time.monotonic()
    found = sources.of_blocks(project, arguments)
    if len(found) != 1 or " ".join(arguments) != found[0].blocks:
        raise UsageError(
            f"--shard is for the load of one source, such as `tidemark run --shard {shard} tap-postgres "
            f"target-postgres`, and not for {' '.join(arguments)}."
        )
    (source,) = found
    ends: list[Endpoints] = []

    def plan(names: list[str]) -> RunPlan:
        ends.append(Endpoints.of(project, source))
        outcomes, loads = blocks.outcomes(names, found)
        return RunPlan(outcomes, loads, ([ends[0].source], database_settings.warehouse(project)))

    with started(project, arguments, plan, run_id=run_id, warn=lambda text: say("warning", text)) as begun:
        with _session(ends[0]) as warehouse:
            _ShardRun(project, source, shard, ends[0], begun, say, warehouse, run_id).run()
        schemas = [source.raw_schema]
        report = report_of(
            project, begun.plan.databases[1], begun.outcome, run_id=run_id, since=moved_since, schemas=schemas
        )
    report.seconds = round(time.monotonic() - began, 3)
    return report


@contextmanager
def _session(ends: Endpoints) -> Iterator[Connection]:
    """Open the session that holds this run's locks.

    Raises:
        TidemarkError: it broke, or the warehouse refused a statement.
    """
    connector = WarehouseConnector(
        lambda: connections.parameters(ends.warehouse), ends.definition.raw_schema, lock_timeout_s=_PLANNING_S
    )
    try:
        connection = connector.connect_once()
    except psycopg.OperationalError as error:
        raise connections.unreachable(ends.warehouse, error) from error
    with connection, connections.explained(connection, ends.warehouse):
        yield connection


def _of_state_file(project: Project, warehouse: Connection, plan: ShardPlan) -> str | None:
    """Return what is wrong if other machines don't see this run's bookmarks. Runs of one machine may share a file."""
    file = meltano_database.file_of(project, resolved_settings.database_uri(project))
    if file is None:
        return None
    others = (advisory_locks.holder(warehouse, plan.lock_key(number)) for number in range(1, plan.count + 1))
    addresses = {holder.address for holder in others if holder}
    if len(addresses) < _SEVERAL:
        return None
    return (
        f"Shards run on several machines ({', '.join(sorted(addresses))}), and Meltano's state is in {file}, which is "
        "only on this one. Without the bookmarks of the others, each machine reads streams from an older bookmark or "
        "from their beginning, and doubles rows of streams in allow_duplicates. Set MELTANO_DATABASE_URI to a database "
        "in PostgreSQL on all of them."
    )


@dataclass
class _ShardRun:
    """A run of a shard."""

    project: Project
    source: SourceDefinition
    shard: Shard
    ends: Endpoints
    begun: StartedRun
    say: Listener
    warehouse: Connection
    run_id: str
    failed: set[str] = field(default_factory=set)
    waits: bool = False
    """It has said that it waits for other runs."""

    @property
    def _plan(self) -> ShardPlan:
        return ShardPlan(self.source.raw_schema, self.ends.source_id, self.shard.count)

    @property
    def _shared(self) -> SharedLoads:
        return SharedLoads(self.project, self.source, self.ends.source_id, self.warehouse)

    def run(self) -> None:
        """Load the shard's own streams, and then parts of what is shared until nothing is left.

        Raises:
            BusyError: the same shard is being loaded.
        """
        (whole,) = self.begun.outcome.blocks
        whole.success = True
        self._take_lock()
        if warning := _of_state_file(self.project, self.warehouse, self._plan):
            self.say("warning", warning)
        tables.ensure_schema(self.warehouse, self.source.raw_schema)
        with connections.connect(self.ends.source) as connection, connections.explained(connection, self.ends.source):
            sizes = stream_sizes.of_tables(connection, self.ends.selected.values())
        with self._alone():
            ids = [self.ends.source_id]
            killed_shards.adopt_states(self.project, self.source, self.warehouse, ids, own=self.shard.name)
            streams = self._take_turn(sizes)
            shared = self._loads()
        own = [stream for stream in streams if stream not in shared]
        self.say("info", f"Shard {self.shard} has {len(streams)} of the streams: {', '.join(streams) or 'none'}")
        if own:
            self._load(own)
        while self._load_shared():
            pass

    def _take_lock(self) -> None:
        key = self._plan.lock_key(self.shard.number)
        if not advisory_locks.try_lock(self.warehouse, key):
            who = advisory_locks.holder(self.warehouse, key) or "it ended just now"
            raise BusyError(f"Shard {self.shard} of {self.source.name} is being loaded already ({who}); wait for that.")

    def _alone(self) -> AbstractContextManager[None]:
        """Keep out the other shards for a moment."""
        return state_lock.alone(self.warehouse, self.source)

    def _take_turn(self, of_tables: Mapping[str, int]) -> tuple[str, ...]:
        """Return the streams of this shard, after large tables that are not loaded yet were divided for all."""
        selected = self.ends.selected
        if self.shard.count > 1:
            self._shared.open(self.ends, selected.values(), of_tables, runs=self.shard.count)
        of_runs = stream_sizes.of_runs(self.warehouse, self.source.raw_schema, self.ends.source_id)
        sizes = {**of_tables, **of_runs}
        weights = {name: sizes.get(name, 0) + stream_sizes.LEAST_BYTES for name in [*selected, *self._missing()]}
        # a slot has one reader, and a run commits the changes of all its streams together
        of_log = tuple(sorted(name for name, stream in selected.items() if stream.method == "LOG_BASED"))
        groups = [*((name,) for name in weights if name not in of_log), *([of_log] if of_log else [])]
        return self._plan.take(
            self.warehouse,
            self.shard.number,
            run_id=self.run_id,
            weights={group: sum(weights[name] for name in group) for group in groups},
        )

    def _missing(self) -> Iterator[str]:
        """Yield streams that are selected by name and that the source lacks: one of the runs has to say so."""
        for text in self.ends.configuration.select:
            pattern = Pattern.parse(text)
            if pattern.names_one() and not pattern.negated and pattern.streams not in self.ends.selected:
                yield pattern.streams

    def _load(self, streams: Collection[str]) -> BlockOutcome:
        """Load streams from where they are."""
        name = self.shard.name
        with self._alone():
            variables = meltano_state.begin_shard(self.project, self.source, name, streams)
        try:
            return self._meltano(streams, variables)
        finally:
            with self._alone():
                meltano_state.end_shard(self.project, self.source, name)

    def _loads(self) -> dict[str, SharedLoad]:
        """Return the shared loads of streams that are still selected, and that did not fail in this run."""
        return {
            stream: load
            for stream, load in self._shared.now().items()
            if stream not in self.failed and stream in self.ends.selected and self.ends.selected[stream].incremental
        }

    def _load_shared(self) -> bool:
        """Load a part, or complete a load whose parts are all loaded. Return whether there is more to do."""
        loads = self._loads()
        for load in loads.values():
            if load.is_complete and self._shared.hand_over(load, self.shard):
                self.say("info", f"All parts of {load.stream} are loaded; now what its table has got since is")
                self._load([load.stream])
                return True
        for load in loads.values():
            if claimed := self._shared.claim(load, (self.shard.number - 1, self.shard.count)):
                self._load_part(claimed)
                return True
        if loads:
            # others have them, or end them
            if not self.waits:
                self.waits = True
                self.say("info", f"Waiting for other runs: they begin or end the first load of {', '.join(loads)}")
            time.sleep(_POLL_S)
        return bool(loads)

    def _load_part(self, claimed: ClaimedPart) -> None:
        load = claimed.load
        self.say("info", f"Loading part {claimed.part.number} of {len(load.parts)} of {load.stream}")
        try:
            ended = self._meltano([load.stream], claimed.variables(self.source.prefix), save_state=False)
        finally:
            self._shared.release(claimed)
        if not ended.success:
            # another run may still succeed
            self.failed.add(load.stream)
        if any(failure.code == TableChangedError.code for failure in ended.failures):
            self._shared.drop(load)

    def _meltano(
        self, streams: Collection[str], variables: Mapping[str, str], *, save_state: bool = True
    ) -> BlockOutcome:
        more = {
            **meltano_project.only(self.source.prefix, streams),
            **self._ceiling(),
            **work_dir.of_shard(self.project, self.shard.name),
            **variables,
        }
        ended = self.begun.load(LineProgress(self.say), streams=streams, more=more, save_state=save_state)
        (whole,) = self.begun.outcome.blocks
        whole.failures += ended.failures
        whole.missing += ended.missing
        whole.last_lines += ended.last_lines
        if not ended.success:
            whole.success, whole.error = False, ended.error
            if not ended.failures:
                whole.failures.append(ended.failure())
        return ended

    def _ceiling(self) -> dict[str, str]:
        """Return the variable with this run's share of what all may read from the source in a second."""
        setting = resolved_settings.read(self.project, self.source.tap, [_CEILING]).get(_CEILING)
        # the tap refuses what is no number
        with suppress(ValueError):
            if setting and (most := float(setting.value)) > 0:
                # Meltano takes only whole numbers from variables
                return {f"{self.source.prefix}_{_CEILING.upper()}": str(max(1, int(most / self.shard.count)))}
        return {}
