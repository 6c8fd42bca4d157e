"""Compares LOG_BASED streams, of which the warehouse has everything up to a position: later changes are pending.

Only rows that the log does not tell of after that position are repaired. So the warehouse stays as of that position.
"""

from __future__ import annotations

import time
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import psycopg
from psycopg import sql

from singer_postgres.core.lsn import lsn_of
from singer_postgres.core.source import log_tables, unloaded_changes
from singer_postgres.core.warehouse.followed_streams import FollowedStreams
from singer_postgres.core.warehouse.slot_table import SlotTable
from singer_postgres.core.warehouse.state_table import StateTable
from tidemark.errors import TidemarkError
from tidemark.inspect.reconcile.hash_queries import pieces

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence

    from tidemark.inspect.check.streams import Stream
    from tidemark.inspect.reconcile.compare import Difference
    from tidemark.inspect.reconcile.hash_queries import ComparedStream, Key
    from tidemark.inspect.reconcile.pairing import Endpoints

    Connection = psycopg.Connection[Any]

# how long a run that streams the slot may take to load what was changed before now
_LOADED_WITHIN_S = 60.0
_POLL_S = 0.5
# how many runs that end before they have loaded that are waited for
_MOST_RUNS = 20


@dataclass(frozen=True)
class Following:
    """A LOG_BASED stream that is complete up to its slot's position.

    Attributes:
        doubt: why its rows may differ from the source's; None if nothing says so.
    """

    ends: Endpoints
    stream: str
    slot: str
    doubt: str | None

    @classmethod
    def of(cls, ends: Endpoints, warehouse: Connection, stream: Stream) -> Following | None:
        """Return the stream as it is followed; None if it is not."""
        if stream.method != "LOG_BASED":
            return None
        state = StateTable(ends.warehouse.default_target_schema)
        held = state.loaded_state(warehouse, ends.source_id, stream.name).get(stream.name)
        if held is None or held.slot is None:
            return None
        doubts = FollowedStreams(state.schema).to_repair(warehouse, ends.source_id)
        return cls(ends, stream.name, held.slot, doubts.get(stream.name))

    @property
    def _schema(self) -> str:
        return self.ends.warehouse.default_target_schema

    def _position(self, warehouse: Connection) -> str:
        held = SlotTable(self._schema).found(warehouse, self.ends.source_id, self.slot)
        if held is None:
            raise TidemarkError(f"The warehouse has no position of the slot {self.slot}: `tidemark slots repair`.")
        return held[0]

    def without_unloaded(
        self,
        source: Connection,
        warehouse: Connection,
        pair: ComparedStream,
        found: Difference,
        *,
        recheck: Callable[[Difference], Difference],
    ) -> tuple[Difference, bool]:
        """Return the differences that are none of changes which a run has yet to load, and whether they are all.

        If a run streams the slot, wait until it has loaded them, and compare again.

        Args:
            recheck: compares the rows of a difference again.

        Raises:
            TidemarkError: runs stream it all the time, and load too little of it.
        """
        if found.equal:
            return found, not found.pending
        for _ in range(_MOST_RUNS):
            if not self._is_streamed(source):
                with suppress(psycopg.errors.ObjectInUse):
                    return self._sorted(source, warehouse, pair, found)
            settled = self._after_a_wait(source, warehouse, pair, found, recheck)
            if settled is not None:
                return settled
            found = recheck(found)
        raise TidemarkError(
            f"{self.stream}: one run after the other streams the slot {self.slot}; compare again when none does."
        )

    def _after_a_wait(
        self,
        source: Connection,
        warehouse: Connection,
        pair: ComparedStream,
        found: Difference,
        recheck: Callable[[Difference], Difference],
    ) -> tuple[Difference, bool] | None:
        """Return the differences of rows that did not change in the source while a run loaded what came before.

        None if the run ended without that: one that does not follow ends where the log was at its start.
        """
        keys = [*found.missing, *found.extra, *found.different]
        before = _hashes(source, pair, keys)
        if not self._wait(source, warehouse):
            return None
        again = recheck(found)
        after = _hashes(source, pair, keys)
        lists = again.missing, again.extra, again.different
        missing, extra, different = ([key for key in each if before.get(key) == after.get(key)] for each in lists)
        pending = sum(again.counts) - len(missing) - len(extra) - len(different)
        settled = replace(again, missing=missing, extra=extra, different=different, pending=again.pending + pending)
        return settled, not settled.pending

    def _sorted(
        self, source: Connection, warehouse: Connection, pair: ComparedStream, found: Difference
    ) -> tuple[Difference, bool]:
        changed = unloaded_changes.changed_rows(
            source,
            slot=self.slot,
            publication=self.ends.configuration.publication,
            table_oid=pair.selection.relation.oid,
            key=pair.key,
            after=self._position(warehouse),
        )
        if changed.truncated or (changed.keys and any(name in pair.selection.masks for name in pair.key)):
            # of masked keys, only the source knows which row is which
            return replace(found, missing=[], extra=[], different=[], pending=sum(found.counts)), False
        keys, partial = _as_compared(source, pair, changed.keys), _as_compared(source, pair, changed.partial)
        lists = found.missing, found.extra, found.different
        missing, extra, different = ([key for key in each if key not in keys] for each in lists)
        pending = sum(found.counts) - len(missing) - len(extra) - len(different)
        is_all = not any(key in partial for each in lists for key in each)
        settled = replace(found, missing=missing, extra=extra, different=different, pending=found.pending + pending)
        return settled, is_all

    def _is_streamed(self, source: Connection) -> bool:
        row = source.execute(
            "select active_pid from pg_catalog.pg_replication_slots where slot_name = %s", [self.slot]
        ).fetchone()
        return row is not None and row[0] is not None

    def _wait(self, source: Connection, warehouse: Connection) -> bool:
        """Wait until the run has loaded what was changed before now, or has ended; return whether it is loaded."""
        row = source.execute("select pg_current_wal_insert_lsn()::text").fetchone()
        assert row
        if source.info.transaction_status == psycopg.pq.TransactionStatus.IDLE:
            log_tables.hasten_flush(source)
        deadline = time.monotonic() + _LOADED_WITHIN_S
        while lsn_of(self._position(warehouse)) < lsn_of(row[0]):
            if not self._is_streamed(source):
                # its last cut may have come after the look at the position
                return lsn_of(self._position(warehouse)) >= lsn_of(row[0])
            if time.monotonic() > deadline:
                raise TidemarkError(
                    f"{self.stream}: a run streams the slot {self.slot}, and did not load what was changed up to "
                    f"{row[0]} within {_LOADED_WITHIN_S:.0f} s; compare again when it has caught up."
                )
            time.sleep(_POLL_S)
        return True

    def is_right(self, warehouse: Connection) -> None:
        """Note that all rows are the source's, whatever the log did not tell of before this comparison."""
        if self.doubt is not None:
            FollowedStreams(self._schema).settle(warehouse, self.ends.source_id, self.stream, self.doubt)


def _hashes(source: Connection, pair: ComparedStream, keys: Sequence[Key]) -> dict[Key, Any]:
    """Return the hashes of the source's rows with these keys, of those that are there."""
    width, found = len(pair.key), {}
    for some in pieces(sorted(keys)):
        rows = source.execute(pair.source_rows(some)).fetchall()
        found.update({row[:width]: row[width] for row in rows})
    return found


def _as_compared(source: Connection, pair: ComparedStream, keys: Collection[Key]) -> set[Key]:
    """Return keys of the log as the comparison writes them."""
    found = set()
    names = [f"k{number}" for number in range(len(pair.key))]
    for some in pieces(sorted(keys)):
        arrays = [sql.SQL("{}::text[]").format(sql.Literal([key[n] for key in some])) for n in range(len(names))]
        query = sql.SQL("select {} from unnest({}) w ({})").format(
            pair.key_texts("w"), sql.SQL(", ").join(arrays), sql.SQL(", ").join(map(sql.Identifier, names))
        )
        found.update(source.execute(query).fetchall())
    return found
