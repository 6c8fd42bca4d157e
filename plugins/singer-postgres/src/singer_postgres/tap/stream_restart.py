"""Decides whether a stream whose table changed, or whose snapshot is gone, can begin again within the run.

`earlier_rows` decides the same for what earlier runs read.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from singer_postgres.core.errors import SnapshotExpiredError, TableChangedError
from singer_postgres.tap.stream_planning import selection_of

if TYPE_CHECKING:
    from singer_postgres.core.source.stream_query import StreamQuery
    from singer_postgres.tap.snapshots import Snapshot
    from singer_postgres.tap.stream_planning import OpenStream


def select_again(stream: OpenStream, snapshot: Snapshot, change: str | None, *, most_epochs: int) -> StreamQuery:
    """Return the query of a stream that restarts.

    Raises:
        SingerPostgresError: the target knows other columns, rows would be loaded twice, or it restarts too often.
    """
    plan, known = stream.plan, stream.layout
    columns = known.changed_column(snapshot.layout, stream.columns_read)
    doubles = plan.method == "INCREMENTAL" and not plan.key and stream.epoch.announced
    # a part's blocks are those of the old files
    can = not columns and not doubles and plan.part is None
    if known.oid == snapshot.layout.oid and can and stream.epoch.number < most_epochs:
        selection = selection_of(snapshot, plan)
        if selection.wire_columns() == stream.selection.wire_columns():
            return selection
    msg = f"{snapshot.relation} changed while it was read: {change or 'it changed too often'}; run this again."
    raise TableChangedError(msg)


def refuse_expired_snapshot(stream: OpenStream, snapshot_s: float) -> None:
    """Raise if a stream that needs a single snapshot would have to continue under another.

    Raises:
        SingerPostgresError: its snapshot expired, and it is a FULL_TABLE stream.
    """
    if stream.plan.method == "FULL_TABLE" and stream.expired:
        msg = (
            f"{stream.plan.stream} is read whole under one snapshot, which took longer than snapshot_seconds = "
            f"{snapshot_s:g}; raise that (and max_source_mb_per_s, if it is set), or give the stream a replication key."
        )
        raise SnapshotExpiredError(msg)
