"""Opens a stream: takes its snapshot, and settles what of it is to be read and which bookmark that leads to."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from singer_postgres.errors import SingerPostgresError
from singer_postgres.tap.select import Selection, select
from singer_postgres.tap.snapshots import Snapshot
from singer_postgres.tap.watermark import ReplicationKey
from singer_postgres.wire import BlockRange, Chunk, Method

if TYPE_CHECKING:
    from collections.abc import Mapping

    from psycopg2 import sql
    from psycopg2.extensions import connection as Connection  # noqa: N812


@dataclass(frozen=True)
class StreamPlan:
    """What is asked of one stream.

    Attributes:
        columns: the selected ones.
        key: the columns that tell rows apart.
        start: the bookmark to read from; None to read from the beginning.
        begun: of a first load that was cut short: its watermark, and the ranges that are loaded.
    """

    stream: str
    schema: str
    name: str
    method: Method
    columns: tuple[str, ...]
    key: tuple[str, ...]
    replication_key: str | None = None
    start: str | None = None
    begun: tuple[str, tuple[BlockRange, ...]] | None = None
    masks: Mapping[str, str] = field(default_factory=dict)
    where: tuple[str, ...] = ()
    allow_duplicates: bool = False


@dataclass
class OpenStream:
    """A stream that is being read."""

    plan: StreamPlan
    selection: Selection
    bound: sql.Composable | None
    snapshot: Snapshot | None
    chunk: Chunk
    """What all its chunks have in common."""
    left: int = 0
    """Ranges not yet read."""


def open_stream(connection: Connection, plan: StreamPlan, *, lookback_s: float) -> OpenStream:
    """Open the stream of `plan` on `connection`, which holds its snapshot from then on.

    Raises:
        SingerPostgresError: it can't be read as planned.
    """
    snapshot = Snapshot(connection, plan.schema, plan.name)
    if plan.method == "INCREMENTAL" and not plan.key and not plan.allow_duplicates:
        msg = (
            f"{plan.stream} has no primary key, so rows that are read again could not be told from new ones. "
            f"Give the table one, or read it whole (replication-method: FULL_TABLE), or name {plan.stream} in "
            "allow_duplicates to have such rows doubled."
        )
        raise SingerPostgresError(msg)
    selection = select(snapshot.relation, plan.columns, key=plan.key, masks=plan.masks, where=plan.where)
    common = Chunk(snapshot=snapshot.id, snapshot_at=snapshot.at, start=plan.start)
    if plan.method == "FULL_TABLE":
        return OpenStream(plan, selection, None, snapshot, common)
    key = _replication_key(plan, selection, lookback_s)
    bound = key.bound(plan.start) if plan.start is not None else None
    if plan.begun and plan.begun[1]:
        known = {leaf.relfilenode for leaf in snapshot.relation.leaves}
        if {block_range[0] for block_range in plan.begun[1]} <= known:
            # rows that changed since the first attempt are stamped past its watermark, and come with the next run
            chunk = replace(common, end=plan.begun[0], resumed=plan.begun[1])
            return OpenStream(plan, selection, bound, snapshot, chunk)
    end = snapshot.horizon if key.is_instant else key.largest(snapshot.connection, selection, bound)
    return OpenStream(plan, selection, bound, snapshot, replace(common, end=end or plan.start))


def _replication_key(plan: StreamPlan, selection: Selection, lookback_s: float) -> ReplicationKey:
    for column in selection.relation.columns:
        if column.name == plan.replication_key:
            return ReplicationKey(column, lookback_s)
    msg = (
        f"{plan.stream} is INCREMENTAL, and {selection.relation} has no column "
        f"{plan.replication_key or '(no replication-key is set)'}; correct its replication-key."
    )
    raise SingerPostgresError(msg)
