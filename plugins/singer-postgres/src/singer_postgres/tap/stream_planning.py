"""Opens a stream: takes its snapshot, decides which rows to read, and computes the next bookmark."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from psycopg2 import sql

from singer_postgres.core.errors import (
    ColumnMissingError,
    KeyMissingError,
    SettingInvalidError,
    TableChangedError,
)
from singer_postgres.core.source import (
    backfill,
    missing_key,
    open_transactions,
    relations,
    replication_key,
    start_date,
    table_limits,
)
from singer_postgres.core.source.replication_key import Lookback, ReplicationKey
from singer_postgres.core.source.stream_query import ReadColumns, StreamQuery, refuse_unreadable, stream_query
from singer_postgres.core.wire import BatchOrigin, refuse_own_name
from singer_postgres.tap import earlier_rows, locks, ordered_bookmark
from singer_postgres.tap.epochs import Epoch
from singer_postgres.tap.locks import Pause
from singer_postgres.tap.passes import Passes
from singer_postgres.tap.snapshots import Snapshot
from singer_postgres.tap.source_cost import SourceCost

if TYPE_CHECKING:
    from datetime import datetime

    from psycopg2.extensions import connection as Connection  # noqa: N812

    from singer_postgres.core.load_part import LoadPart
    from singer_postgres.core.notices import Notices
    from singer_postgres.core.source.relations import Relation
    from singer_postgres.tap.layout import Layout
    from singer_postgres.tap.stream_plan import StreamPlan


@dataclass
class OpenStream:
    """A stream that is being read."""

    plan: StreamPlan
    selection: StreamQuery
    bound: sql.Composable | None
    snapshot: Snapshot | None
    origin: BatchOrigin
    """What all its messages say."""
    layout: Layout
    """The relation at the time its current ranges were cut."""
    relation: Relation
    epoch: Epoch = field(default_factory=Epoch)
    """The current epoch, or the last one."""
    passes: Passes = field(default_factory=Passes)
    """The current pass of the epoch."""
    progress_at: float = 0.0
    """When the last range was read, by the monotonic clock."""
    renewing: bool = False
    """A worker is taking a new snapshot."""
    expired: bool = False
    """Its snapshot became too old."""
    pause: Pause = field(default_factory=Pause)
    yields: int = 0
    """How often in a row a range was interrupted for a waiting session."""
    breaks: int = 0
    """How often in a row a connection broke."""
    cost: SourceCost = field(default_factory=SourceCost)
    """What reading it has cost the source."""
    is_parallel: bool = False
    """The server reads it with more than one process, whose counts a session does not have."""
    held_back: tuple[str, float] | None = None
    """What holds the bookmark back, and for how many seconds it has done so."""

    @property
    def condition(self) -> sql.Composable | None:
        """The condition on the rows that are read now."""
        if self.passes.since is None:
            return self.bound
        written = earlier_rows.written_since(self.passes.since)
        return written if self.bound is None else sql.SQL("({}) AND {}").format(self.bound, written)

    @property
    def columns_read(self) -> list[str]:
        """The names of the columns that are read or compared, or that the user's conditions may name."""
        if self.plan.where:
            return list(self.layout.columns)
        names = [column.name for column in self.selection.columns]
        return [*names, self.plan.replication_key] if self.plan.replication_key else names


def open_stream(  # noqa: PLR0913 - each argument has a name
    connection: Connection,
    plan: StreamPlan,
    *,
    lookback: Lookback,
    notices: Notices,
    lock_timeout_s: float,
    chunks: bool = True,
) -> OpenStream:
    """Open the stream of `plan` on `connection`, which holds the snapshot after that.

    Args:
        chunks: this project's target loads the stream; it receives the value that old rows have in a new column.

    Raises:
        SingerPostgresError: the stream can't be read as planned.
        LockedError: its table is locked.
    """
    if chunks:
        refuse_own_name(plan.stream, plan.name)
    if plan.method == "INCREMENTAL" and not plan.key and (plan.backfill or not plan.allow_duplicates):
        raise KeyMissingError(_no_key(connection, plan))
    snapshot = Snapshot(connection, plan.schema, plan.name, lock_timeout_s=lock_timeout_s)
    if plan.method == "INCREMENTAL" and plan.start_date is not None:
        plan = _from_start_date(plan, plan.start_date, _replication_key(plan, snapshot.relation, lookback), notices)
    selection = selection_of(snapshot, plan)
    if chunks:
        table_limits.refuse(connection, selection.relation, selection.columns, selection.masks)
    if plan.method == "FULL_TABLE":
        _refuse_range(plan)
        return _opened(plan, selection, None, snapshot, _origin(snapshot, plan))
    if plan.method == "LOG_BASED":
        plan, bound = _moved(snapshot, selection, plan, lookback, notices, fills=chunks)
        # what changes during and between its reads is in the log
        return _opened(plan, selection, bound, snapshot, _resumed(_origin(snapshot, plan), plan, snapshot))
    if plan.backfill is not None:
        key = _replication_key(plan, selection.relation, lookback)
        bound = backfill.bound(snapshot.connection, plan.stream, key, plan.backfill)
        return _opened(plan, selection, bound, snapshot, replace(_origin(snapshot, plan), backfill=True))
    key = _replication_key(plan, selection.relation, lookback)
    end: str | None
    if key.is_time:
        plan = _checked(snapshot, selection, plan, key, notices, fills=chunks)
        plan, end = _instant(snapshot, plan, key, notices)
        bound = key.bound(connection, plan.bookmark) if plan.bookmark is not None else None
    else:
        # query the largest values first, then the open transactions, and then take the snapshot
        parts = list(snapshot.layout.parts)
        with locks.at_once(snapshot.release(), parts, lock_timeout_s=lock_timeout_s):
            plan, end = ordered_bookmark.bookmark(connection, plan, selection, key, notices)
        bound = key.bound(connection, plan.bookmark) if plan.bookmark is not None else None
        snapshot = Snapshot(connection, plan.schema, plan.name, lock_timeout_s=lock_timeout_s)
        selection = selection_of(snapshot, plan)
        plan = _checked(snapshot, selection, plan, key, notices, fills=chunks)
        bound = bound if plan.bookmark is not None else None
    origin = replace(_origin(snapshot, plan), end=end)
    if plan.part is not None:
        origin = _of_part(origin, plan, plan.part, snapshot)
        return _opened(plan, _as_begun(selection, plan.part), None, snapshot, origin)
    return _opened(plan, selection, bound, snapshot, _resumed(origin, plan, snapshot))


def _moved(  # noqa: PLR0913 - what is read, and how
    snapshot: Snapshot,
    selection: StreamQuery,
    plan: StreamPlan,
    lookback: Lookback,
    notices: Notices,
    *,
    fills: bool,
) -> tuple[StreamPlan, sql.Composable | None]:
    """Return how to read a LOG_BASED stream that was INCREMENTAL: once more from its bookmark, or else whole."""
    if plan.bookmark is None:
        return plan, None
    known = {column.name for column in selection.relation.columns}
    key = _replication_key(plan, selection.relation, lookback) if plan.replication_key in known else None
    if key is None or not key.is_time:
        # of other keys, only some runs' own trail of values tells which rows may have come late
        return replace(plan, bookmark=None), None
    plan = _checked(snapshot, selection, plan, key, notices, fills=fills)
    return plan, key.bound(snapshot.connection, plan.bookmark) if plan.bookmark is not None else None


def _resumed(origin: BatchOrigin, plan: StreamPlan, snapshot: Snapshot) -> BatchOrigin:
    """Return the origin of a first load, without what an earlier run has loaded if its files are still the same."""
    # a state of earlier releases doesn't tell since when rows may have moved
    is_known = plan.method == "LOG_BASED" or (plan.columns_before is not None and plan.columns_before.seen is not None)
    if is_known and plan.first_load and plan.first_load[1]:
        known = {leaf.relfilenode for leaf in snapshot.relation.leaves}
        if {block_range[0] for block_range in plan.first_load[1]} <= known:
            return replace(origin, end=plan.first_load[0], resumed=plan.first_load[1])
    return origin


def _of_part(origin: BatchOrigin, plan: StreamPlan, part: LoadPart, snapshot: Snapshot) -> BatchOrigin:
    """Return the origin of a part of a first load that several runs share.

    Raises:
        TableChangedError: the table is no longer the one whose blocks were divided into parts.
    """
    known = {leaf.relfilenode for leaf in snapshot.relation.leaves}
    # `_checked` drops a first load whose columns changed
    is_changed = part.columns is not None and plan.first_load is None
    if is_changed or not {node for node, _, _ in part.ranges} <= known:
        raise TableChangedError(_part_changed(snapshot.relation))
    return replace(origin, end=part.watermark) if part.columns is not None else origin


def _as_begun(selection: StreamQuery, part: LoadPart) -> StreamQuery:
    """Return what the load's first run read: other parts may be under way, and would leave a new column null.

    Raises:
        TableChangedError: a column is gone.
    """
    if part.columns is None:
        return selection
    before, now = ReadColumns.from_json(part.columns), selection.relation
    names = {name for name, *_ in before.columns}
    if names - {column.name for column in selection.columns}:
        raise TableChangedError(_part_changed(now))
    # the run that completes the load adds what is new, with the value that old rows have
    relation = replace(now, columns=tuple(column for column in now.columns if column.attnum <= before.max_attnum))
    columns = tuple(column for column in selection.columns if column.name in names)
    return replace(selection, relation=relation, columns=columns)


def _part_changed(relation: Relation) -> str:
    return (
        f"{relation} was rewritten or altered since its first load was divided into parts, so this part can't be read; "
        "run this again, which begins that load again."
    )


def _opened(
    plan: StreamPlan, selection: StreamQuery, bound: sql.Composable | None, snapshot: Snapshot, origin: BatchOrigin
) -> OpenStream:
    opened = OpenStream(plan, selection, bound, snapshot, origin, snapshot.layout, snapshot.relation)
    if origin.resumed and plan.columns_before is not None:
        opened.passes = Passes.resumed(plan.columns_before.seen)
    return opened


def _checked(  # noqa: PLR0913 - each argument has a name
    snapshot: Snapshot, selection: StreamQuery, plan: StreamPlan, key: ReplicationKey, notices: Notices, *, fills: bool
) -> StreamPlan:
    """Return the plan; from the beginning if the rows that earlier runs read are no longer valid."""
    if plan.columns_before is None or (plan.bookmark is None and plan.first_load is None):
        return plan
    seen, bound = plan.columns_before.seen, None
    if plan.bookmark is not None:
        bound = key.bound(snapshot.connection, plan.bookmark)
    elif seen and selection.relation.leaves:
        # which the last pass of a first load reads; see `Passes`
        bound = earlier_rows.written_since(seen)
    why = earlier_rows.why_not_valid(
        snapshot.connection,
        selection,
        plan.columns_before,
        bound,
        parts=list(snapshot.layout.parts),
        fills=fills,
        stamped=key.is_time,
        resumes=plan.bookmark is None,
    )
    if why is None:
        return plan
    notices.warn(plan.stream, f"Reading {plan.stream} from its beginning: {why}.")
    return replace(plan, bookmark=None, first_load=None)


def _refuse_range(plan: StreamPlan) -> None:
    if plan.backfill is not None and not plan.backfill.is_all:
        msg = (
            f"{plan.stream} is read whole at every run, so no range of it can be backfilled: leave out {backfill.FROM} "
            f"and {backfill.TO}, or make it INCREMENTAL."
        )
        raise SettingInvalidError(msg)


def _origin(snapshot: Snapshot, plan: StreamPlan) -> BatchOrigin:
    return BatchOrigin(snapshot=snapshot.id, snapshot_at=snapshot.at, lsn=snapshot.lsn, start=plan.bookmark)


def _no_key(connection: Connection, plan: StreamPlan) -> str:
    """Return the message for a stream that needs a primary key and has none."""
    relation = relations.find(connection, plan.schema, plan.name)
    lacking = missing_key.missing_key(connection, relation) if relation else missing_key.MissingKey()
    why = f" ({lacking.why})" if lacking.why else ""
    return (
        f"{plan.stream} has no primary key{why}, so rows that are read again can't be told from new ones. "
        f"{lacking.advice()}, or read it whole (replication-method: FULL_TABLE), or name {plan.stream} in "
        "allow_duplicates to load such rows twice."
    )


def selection_of(snapshot: Snapshot, plan: StreamPlan) -> StreamQuery:
    """Return the query for a relation under a snapshot.

    Raises:
        SingerPostgresError: a column is missing, or can't be read.
    """
    return stream_query(snapshot.relation, plan.columns, key=plan.key, masks=plan.masks, where=plan.where)


def _instant(snapshot: Snapshot, plan: StreamPlan, key: ReplicationKey, notices: Notices) -> tuple[StreamPlan, str]:
    """Return the plan and the next bookmark for a timestamp replication key."""
    found, lookback = snapshot.open_transactions, key.lookback
    start = key.instant(plan.bookmark) if plan.bookmark is not None else None
    if start is not None and start > found.now + lookback.usual:
        notices.warn(
            plan.stream,
            f"The bookmark of {plan.stream}, {plan.bookmark}, is ahead of the source's clock, "
            f"{open_transactions.iso(found.now)}: the clock went back, or someone edited the state. "
            "Reading the stream from its beginning.",
        )
        plan, start = replace(plan, bookmark=None), None
    if key.is_local and lookback.zone is None:
        notices.warn(
            "zone",
            f"{key.column.name} of {plan.stream} has no time zone, and timestamp_timezone is not set: each run reads "
            "all rows of the last 12 hours. Set it, for example to UTC.",
        )
    replication_key.warn_about_holders(found, lookback, notices)
    return plan, open_transactions.iso(found.settled(start, longest=lookback.longest))


def _from_start_date(plan: StreamPlan, date: datetime, key: ReplicationKey, notices: Notices) -> StreamPlan:
    """Return the plan with the condition of `start_date` added."""
    condition = start_date.condition(date, key)
    if condition is None:
        notices.warn(
            f"start_date of {plan.stream}",
            f"start_date does not limit {plan.stream}, whose replication key {key.column.name} is of type "
            f"{key.column.declared} and not a time; limit it with `where`.",
        )
        return plan
    return replace(plan, where=(*plan.where, condition), start_date=None)


def _replication_key(plan: StreamPlan, relation: Relation, lookback: Lookback) -> ReplicationKey:
    for column in relation.columns:
        if column.name == plan.replication_key:
            refuse_unreadable(relation, [column])
            return ReplicationKey(column, lookback)
    msg = (
        f"{plan.stream} is INCREMENTAL, and {relation} has no column "
        f"{plan.replication_key or '(no replication-key is set)'}; correct its replication-key."
    )
    raise ColumnMissingError(msg)
