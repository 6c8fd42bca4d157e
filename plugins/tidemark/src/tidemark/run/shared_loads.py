"""First loads that several runs share: which there are, which part this run takes, and how they end.

A part belongs to the run that holds its advisory lock in the warehouse. The server frees the lock when that run's
session ends, however it ends, and then another run takes the part over.
"""

from __future__ import annotations

import json
import uuid
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import psycopg

from singer_postgres.core import advisory_locks
from singer_postgres.core.load_part import LoadPart
from singer_postgres.core.source import block_ranges, relations
from singer_postgres.core.warehouse import run_lock
from singer_postgres.core.warehouse.load_parts import LoadParts, SharedLoad
from singer_postgres.core.warehouse.shard_plan import ShardPlan
from singer_postgres.core.warehouse.state_table import StateTable
from singer_postgres.core.wire import FIRST_LOAD, SHAPE
from tidemark.errors import UsageError
from tidemark.project import connections, meltano_project, meltano_state, state_lock

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from tidemark.inspect.check.streams import Stream
    from tidemark.inspect.reconcile.pairing import Endpoints
    from tidemark.project.directory import Project
    from tidemark.project.sources import SourceDefinition
    from tidemark.run.shard import Shard

    Connection = psycopg.Connection[Any]

_PART_MB = "TIDEMARK_SHARD_PART_MB"
# a part takes about a minute, beside the seconds in which Meltano starts
_SMALLEST_BYTES = 2**30
# what is lost with a run that is killed, and how long the last part keeps the others waiting
_LARGEST_BYTES = 16 * 2**30
# more parts than runs, so that fast runs take more of them
_PARTS_A_RUN = 8
# the other runs wait meanwhile
_SHORT = "set lock_timeout = '1s'"


@dataclass(frozen=True)
class ClaimedPart:
    """A part that this run loads.

    Attributes:
        locks: the keys of its locks.
        part: what the tap is told.
    """

    load: SharedLoad
    part: LoadPart
    locks: tuple[int, ...]

    def variables(self, prefix: str) -> dict[str, str]:
        """Return the variables that limit a tap to the part."""
        name = meltano_project.escaped(self.load.stream)
        return {f"{prefix}_FIRST_LOAD_PART": json.dumps({name: self.part.to_json()})}


@dataclass(frozen=True)
class SharedLoads:
    """The shared first loads of one source. `warehouse` is a session that lasts as long as the run."""

    project: Project
    source: SourceDefinition
    source_id: str
    warehouse: Connection

    @property
    def _table(self) -> LoadParts:
        return LoadParts(self.source.raw_schema, self.source_id)

    def now(self) -> dict[str, SharedLoad]:
        """Return the loads by stream."""
        return self._table.loads(self.warehouse)

    def open(self, ends: Endpoints, streams: Iterable[Stream], sizes: Mapping[str, int], *, runs: int) -> None:
        """Divide the tables among `streams` that are large and not loaded yet. The caller keeps out other runs.

        Args:
            sizes: their bytes.
            runs: how many runs share a load.
        """
        if ends.configuration.sends_records:
            # they have no ranges
            return
        there = self.now()
        smallest = part_bytes(self.project)
        large = [each for each in streams if sizes.get(each.name, 0) >= 2 * (smallest or _SMALLEST_BYTES)]
        if not (large := [each for each in large if each.incremental and each.name not in there]):
            return
        entries = meltano_state.entries(self.project, self.source)
        with connections.connect(ends.source) as connection:
            connection.execute(_SHORT)
            for stream in large:
                entry = entries.get(stream.name, {})
                if entry.get("replication_key_value") is not None or entry.get(FIRST_LOAD):
                    continue
                relation = None
                # one run loads a table that another session alters just now
                with connections.explained(connection, ends.source), suppress(psycopg.errors.LockNotAvailable):
                    relation = relations.find(connection, *stream.relation.path)
                if relation is None or relation.inherited or not (stream.key or relation.key):
                    continue
                size = sum(leaf.bytes for leaf in relation.leaves)
                of_part = smallest or min(max(size / (runs * _PARTS_A_RUN), _SMALLEST_BYTES), _LARGEST_BYTES)
                self._open(stream.name, relation, of_part)

    def _open(self, stream: str, relation: relations.Relation, part_bytes: float) -> None:
        held = advisory_locks.held(self.warehouse)
        if run_lock.key_of(self.source.raw_schema, relation.name) in held:
            # an ordinary run loads it
            return
        bytes_of = {leaf.relfilenode: leaf.bytes / max(leaf.blocks, 1) for leaf in relation.leaves}
        parts = [
            (ranges, round(sum((after - first) * bytes_of[node] for node, first, after in ranges if after is not None)))
            for ranges in block_ranges.parts(relation.leaves, part_bytes=part_bytes)
        ]
        if len(parts) > 1:
            self._table.ensure(self.warehouse)
            with self.warehouse.transaction():
                self._table.open(self.warehouse, stream, relation.name, load_id=str(uuid.uuid4()), parts=parts)

    # parts

    def claim(self, load: SharedLoad, share: tuple[int, int]) -> ClaimedPart | None:
        """Take a part that no other run has; None if there is none now.

        Args:
            share: see `LoadPart`.
        """
        run_key = run_lock.key_of(self.source.raw_schema, load.table)
        if not advisory_locks.try_lock(self.warehouse, run_key, shared=True):
            return None
        begin = advisory_locks.key("tidemark part", load.id, "begin")
        # the first part's run takes the watermark, and the others wait for that
        if not load.has_begun and not advisory_locks.try_lock(self.warehouse, begin):
            advisory_locks.unlock(self.warehouse, run_key, shared=True)
            return None
        first = () if load.has_begun else (begin,)
        for part in load.parts:
            key = advisory_locks.key("tidemark part", load.id, str(part.number))
            if part.is_finished or not advisory_locks.try_lock(self.warehouse, key):
                continue
            # it may have been finished before this lock was taken
            now = self.now().get(load.stream)
            if now and now.id == load.id and now.has_begun == load.has_begun:
                found = next(each for each in now.parts if each.number == part.number)
                if not found.is_finished:
                    left = block_ranges.remaining([(None, blocks) for blocks in found.ranges], found.done)
                    ranges = tuple(blocks for _, blocks in left)
                    told = LoadPart(load.id, part.number, ranges, now.watermark, now.columns, share)
                    return ClaimedPart(now, told, (*first, key))
            advisory_locks.unlock(self.warehouse, key)
        for key in first:
            advisory_locks.unlock(self.warehouse, key)
        advisory_locks.unlock(self.warehouse, run_key, shared=True)
        return None

    def release(self, claimed: ClaimedPart) -> None:
        """Give a part back: it is loaded, or another run may try."""
        for key in claimed.locks:
            advisory_locks.unlock(self.warehouse, key)
        advisory_locks.unlock(self.warehouse, run_lock.key_of(self.source.raw_schema, claimed.load.table), shared=True)

    # the end

    def hand_over(self, load: SharedLoad, shard: Shard | None = None) -> bool:
        """Have the next ordinary run of the stream go on from what is loaded. Return whether it was this that did so.

        Other runs that load its parts keep it as it is.

        Args:
            shard: the one that loads the rest. The stream is its own from here on: a run that begins meanwhile does
                not load it, and its retry does, should it be killed.
        """
        with state_lock.alone(self.warehouse, self.source):
            return self._hand_over(load, shard)

    def _hand_over(self, load: SharedLoad, shard: Shard | None) -> bool:
        key = run_lock.key_of(self.source.raw_schema, load.table)
        if not advisory_locks.try_lock(self.warehouse, key):
            return False
        try:
            now = self.now().get(load.stream)
            if now is None or now.id != load.id:
                return False
            if now.has_begun:
                # Meltano's state comes first: if this is killed in between, the next run does it again. The other way
                # round, that run would read the table from its beginning.
                ranges = [list(blocks) for blocks in block_ranges.merged(now.done)]
                entry = {FIRST_LOAD: [now.watermark, ranges], SHAPE: now.columns}
                meltano_state.put(self.project, self.source, {load.stream: entry})
            with self.warehouse.transaction():
                if now.has_begun:
                    StateTable(self.source.raw_schema).set_ranges(
                        self.warehouse, self.source_id, load.stream, now.done, has_rows=now.has_rows
                    )
                if shard:
                    plan = ShardPlan(self.source.raw_schema, self.source_id, shard.count)
                    plan.move(self.warehouse, load.stream, shard.number)
                self._table.close(self.warehouse, load.stream)
            return True
        finally:
            advisory_locks.unlock(self.warehouse, key)

    def drop(self, load: SharedLoad) -> None:
        """End a load whose table changed: the next run reads it from its beginning."""
        self._table.close(self.warehouse, load.stream)


def part_bytes(project: Project) -> float | None:
    """Return how much of a table one part has; None if that depends on the table.

    Raises:
        UsageError: the variable is no number.
    """
    named = project.variable(_PART_MB)
    if named is None:
        return None
    with suppress(ValueError):
        if (found := float(named)) > 0:
            return found * 2**20
    raise UsageError(f"{_PART_MB} is {named!r}; write a number of MiB above 0, such as 1024, or leave it out.")
