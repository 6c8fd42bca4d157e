"""`tidemark slots repair`: brings streams back to their slot by comparing them with the source, instead of a copy.

A slot may be lost, or may have gone on without a stream. Then the log no longer tells what changed between the
warehouse's position and the slot's. The slot comes first: it has everything from its position on. What is compared
after that lies after the slot's position, so the stream is complete once the log has passed it, as after a first load.
"""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from singer_postgres.core.errors import BusyError as LockedError
from singer_postgres.core.errors import SingerPostgresError, SlotMissingError, one_line
from singer_postgres.core.lsn import lsn_of
from singer_postgres.core.source import log_tables, older_writers, relations
from singer_postgres.core.source.stream_query import ReadColumns
from singer_postgres.core.warehouse import tables
from singer_postgres.core.warehouse.connections import WarehouseConnector
from singer_postgres.core.warehouse.followed_streams import FollowedStreams, pending_table
from singer_postgres.core.warehouse.run_lock import RunLock
from singer_postgres.core.warehouse.slot_table import SlotTable
from singer_postgres.core.warehouse.state_table import StateTable
from singer_postgres.core.wire import FIRST_LOAD, LOG, SHAPE
from tidemark.errors import BusyError, TidemarkError, UsageError
from tidemark.inspect import named_streams, slots
from tidemark.inspect.reconcile.pairing import Endpoints
from tidemark.inspect.reconcile.recorder import ReconcileRecorder
from tidemark.inspect.reconcile.run import ReconcileOptions, result_of
from tidemark.project import connections, meltano_state, state_lock
from tidemark.project.file_locks import hold

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from singer_postgres.core.log_origin import LogOrigin
    from singer_postgres.core.source.relations import Relation
    from tidemark.inspect.check.streams import Stream
    from tidemark.inspect.reconcile.pairing import Sessions
    from tidemark.inspect.reconcile.result import ReconcileResult
    from tidemark.project.directory import Project
    from tidemark.project.sources import SourceDefinition

# the parts of a first load's state; a comparison adds its position in the log
_WITHOUT_POSITION = 2


@dataclass(frozen=True)
class RepairOptions:
    """The user's options: the streams, or by default all that need it; and how much may be marked as deleted."""

    streams: tuple[str, ...] = ()
    source: str | None = None
    allowed_percent: float = 5


def repair(
    project: Project,
    options: RepairOptions,
    *,
    began: Callable[[str], None],
    say: Callable[[str], None],
    warn: Callable[[str], None],
) -> list[ReconcileResult]:
    """Bring back streams that no longer follow their slot, and compare those whose rows may differ.

    Args:
        began: called with each stream's name before its comparison.
        say: takes what is done to the slot.
        warn: called once, with the reason, if results can't be recorded; and with who is waited for.

    Raises:
        UsageError: a named stream is not LOG_BASED.
        BusyError: a run is active.
        TidemarkError: the slot can't be made, or a database can't be reached or used.
    """
    meant = named_streams.by_source(project, options.streams, options.source)
    results: list[ReconcileResult] = []
    with hold(project.pipeline_lock, doing="running the pipeline"):
        for source, names in meant.items():
            ends = Endpoints.of(project, source, names)
            followed = {name: each for name, each in ends.selected.items() if each.method == "LOG_BASED"}
            if unfit := [source.shown(name) for name in names if name not in followed]:
                raise UsageError(f"{', '.join(unfit)}: not LOG_BASED, so `tidemark reconcile --repair` compares it.")
            if followed:
                results += _Repair(project, source, ends, followed, options).run(names, began, say, warn)
    return results


@dataclass(frozen=True)
class _Repair:
    """The repair of one source's streams."""

    project: Project
    source: SourceDefinition
    ends: Endpoints
    followed: dict[str, Stream]
    options: RepairOptions

    @property
    def _schema(self) -> str:
        return self.ends.warehouse.default_target_schema

    @property
    def _slot(self) -> str:
        return self.ends.configuration.slot

    def run(
        self,
        names: Sequence[str],
        began: Callable[[str], None],
        say: Callable[[str], None],
        warn: Callable[[str], None],
    ) -> list[ReconcileResult]:
        """Repair the named streams, or all that need it; see `repair`."""
        entries = meltano_state.entries(self.project, self.source)
        with self._locked():
            self._fit_slot(names, say)
            outside, doubted, empty = self._to_repair(entries, names)
            recorder = ReconcileRecorder(self.ends, since=None, warn=warn)
            results = []
            for name in empty:
                say(f"{self.source.shown(name)} had no rows: the next run reads it whole.")
                self._bring_back(name, entries.get(name, {}))
            with self.ends.sessions() as sessions:
                for name in [*outside, *doubted]:
                    began(self.source.shown(name))
                    found = self._published(sessions, self.followed[name], warn) if name in outside else None
                    if name in outside and (columns := self._new_columns(sessions, self.followed[name])):
                        say(f"{self.source.shown(name)} has new columns, {columns}: the next run reads it whole.")
                        self._bring_back(name, entries.get(name, {}))
                        continue
                    result = self._compared(sessions, name, recorder, as_of_now=name in outside)
                    results.append(result)
                    if name in outside and result.error is None and not result.why:
                        self._bring_back(name, entries.get(name, {}), found)
        return results

    @contextmanager
    def _locked(self) -> Iterator[RunLock]:
        """Keep out runs on other machines."""
        lock = RunLock(WarehouseConnector(lambda: connections.parameters(self.ends.warehouse), self._schema))
        try:
            for name, stream in self.followed.items():
                lock.take(name, self._schema, stream.relation.name)
            yield lock
        except LockedError as error:
            raise BusyError(str(error)) from error
        finally:
            lock.close()

    def _fit_slot(self, names: Sequence[str], say: Callable[[str], None]) -> None:
        """Make the slot again if it can't go on from the warehouse's position, and have its streams begin there.

        Raises:
            UsageError: only some streams were named, and all need it.
        """
        with connections.connect(self.ends.warehouse) as connection:
            StateTable(self._schema).ensure(connection)
            SlotTable(self._schema).ensure(connection)
            held = SlotTable(self._schema).found(connection, self.ends.source_id, self._slot)
        origin = slots.origin(self.ends.source)
        why = self._unfit(held, origin)
        if why is None:
            return
        if names and set(names) < self.followed.keys():
            raise UsageError(f"{why} That concerns all LOG_BASED streams: leave out the names.")
        say(f"{why} Its streams begin again where the slot is.")
        for line in slots.create_again(self.project, self.source):
            say(line)
        with connections.connect(self.ends.source) as connection:
            try:
                position = log_tables.slot(connection, self._slot).confirmed
            except SlotMissingError as error:
                raise TidemarkError(str(error)) from error
        followed = FollowedStreams(self._schema)
        with connections.connect(self.ends.warehouse) as connection, connection.transaction():
            for name in followed.leave(connection, self.ends.source_id, self._slot, why=why):
                connection.execute(b"DROP TABLE IF EXISTS " + pending_table(self._schema, name).as_bytes(connection))
            SlotTable(self._schema).begin(connection, self.ends.source_id, self._slot, origin, position)

    def _unfit(self, held: tuple[str, LogOrigin] | None, origin: LogOrigin) -> str | None:
        """Return why the slot can't go on from the warehouse's position; None if it can."""
        try:
            with connections.connect(self.ends.source) as connection:
                found = log_tables.slot(connection, self._slot)
        except SlotMissingError as error:
            return str(error)
        if held is None:
            return f"The warehouse has no position of the slot {self._slot}."
        position, then = held
        if not origin.goes_on_from(position, then):
            return (
                f"The warehouse followed the slot {self._slot} up to {position} of the server {then.system}, timeline "
                f"{then.timeline}; it is now of {origin.system}, timeline {origin.timeline}, which does not have that."
            )
        if lsn_of(found.confirmed) > lsn_of(position):
            return f"The slot {self._slot} is at {found.confirmed}, and the warehouse has its changes up to {position}."
        return None

    def _to_repair(
        self, entries: dict[str, dict[str, Any]], names: Sequence[str]
    ) -> tuple[list[str], list[str], list[str]]:
        """Return the streams to bring back, those whose rows are in doubt, and those to bring back that had no rows."""
        with connections.connect(self.ends.warehouse) as connection:
            held = StateTable(self._schema).loaded_state(connection, self.ends.source_id)
            doubts = FollowedStreams(self._schema).to_repair(connection, self.ends.source_id)
        outside, doubted, empty = [], [], []
        for name in sorted(self.followed):
            loaded = held.get(name)
            if names and name not in names:
                continue
            if loaded is None or not loaded.has_rows:
                if entries.get(name, {}).get(LOG) and (loaded is None or loaded.slot != self._slot):
                    empty.append(name)
                # the next run loads any other
                continue
            entry = entries.get(name, {})
            is_other = self._has_other_condition(name, entry)
            follows = loaded.slot == self._slot and entry.get(LOG) and not is_other
            # it was compared by another condition, and no run has come since
            is_outdated = is_other and len(entry.get(FIRST_LOAD) or ()) > _WITHOUT_POSITION
            if not follows and (name in names or name in doubts or entry.get(LOG) or is_outdated):
                outside.append(name)
            elif follows and (name in names or name in doubts):
                doubted.append(name)
        return outside, doubted, empty

    def _has_other_condition(self, name: str, entry: dict[str, Any]) -> bool:
        """Return whether a stream has another condition than in its last run.

        The log may still have changes by the earlier one, so the stream is compared as of now.
        """
        where = tuple(self.ends.configuration.where.get(name, ()))
        return bool(entry.get(SHAPE)) and ReadColumns.from_json(entry[SHAPE]).where != where

    def _published(
        self, sessions: Sessions, stream: Stream, warn: Callable[[str], None]
    ) -> tuple[Relation, str, str] | None:
        """Wait until the log tells of all later changes of a table.

        Return it, which transaction published it, and a position: a comparison after this sees all that was committed
        before that position, of which the log may have some by an earlier condition.
        """
        with sessions.connected() as (source, _):
            relation = relations.find(source, *stream.relation.path)
            if relation is None:
                return None
            try:
                xid = log_tables.published_by(
                    source,
                    self.ends.configuration.publication,
                    relation,
                    stream.key or relation.key,
                    columns=[column.name for column in stream.columns],
                    where=self.ends.configuration.where.get(stream.name, ()),
                )
                older_writers.wait(source, relation.oid, stream=stream.name, warn=warn)
                lsn = source.execute("select pg_catalog.pg_current_wal_insert_lsn()::text").fetchone()
                # a transaction that committed before it may not be visible yet
                older_writers.wait(source, relation.oid, stream=stream.name, warn=warn)
            except SingerPostgresError as error:
                raise TidemarkError(one_line(error)) from error
            assert lsn
            return relation, xid, str(lsn[0])

    def _as_compared(self, name: str, shape: Any, published: str) -> Any:
        """Return what the state says of how a stream was read: it is compared by the condition that it has now."""
        where = tuple(self.ends.configuration.where.get(name, ()))
        return replace(ReadColumns.from_json(shape), where=where, published=published).to_json()

    def _new_columns(self, sessions: Sessions, stream: Stream) -> str:
        """Return the names of selected columns that the warehouse does not have yet, and so can't be compared."""
        with sessions.connected() as (_, warehouse):
            there = tables.columns_of(warehouse, self._schema, stream.relation.name)
        return ", ".join(column.name for column in stream.columns if column.name not in there)

    def _compared(
        self, sessions: Sessions, name: str, recorder: ReconcileRecorder, *, as_of_now: bool
    ) -> ReconcileResult:
        allowed = self.options.allowed_percent
        options = ReconcileOptions(
            (name,), repair=True, allowed_percent=allowed, command="tidemark slots repair {}", as_of_now=as_of_now
        )
        result = result_of(sessions, self.ends, name, options, recorder, is_locked=True)
        if result.error is None:
            return result
        instead = f"`tidemark state rewind {self.source.shown(name)} --to beginning` has the next run read it whole."
        return replace(result, error=f"{result.error.rstrip('.')}. Or {instead}")

    def _bring_back(self, name: str, entry: Mapping[str, Any], found: tuple[Relation, str, str] | None = None) -> None:
        """Have the next run complete the stream as a first load: of which all is read if it was compared.

        Args:
            entry: its state for the tap.
            found: what `_published` returned before the comparison; None if the next run is to read all rows.
        """
        relation, published, position = found or (None, "", "")
        blocks = [(leaf.relfilenode, 0, None) for leaf in relation.leaves] if relation else []
        with connections.connect(self.ends.warehouse) as connection, connection.transaction():
            connection.execute(b"DROP TABLE IF EXISTS " + pending_table(self._schema, name).as_bytes(connection))
            FollowedStreams(self._schema).compared(
                connection,
                self.ends.source_id,
                name,
                table=self.followed[name].relation.name,
                slot=self._slot,
                blocks=blocks,
            )
        begun = [None, [list(each) for each in blocks], *([position] if relation else [])]
        entry = {**entry, LOG: [], FIRST_LOAD: begun}
        if relation and entry.get(SHAPE):
            entry[SHAPE] = self._as_compared(name, entry[SHAPE], published)
        # one by one, so that a repair that is interrupted leaves those before whole
        with connections.connect(self.ends.warehouse) as connection, state_lock.alone(connection, self.source):
            meltano_state.put(self.project, self.source, {name: entry})
