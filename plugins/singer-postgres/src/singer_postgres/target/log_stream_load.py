"""The load of one LOG_BASED stream: its first load from chunks, and then the changes of the log."""

from __future__ import annotations

import logging
import time
from functools import cached_property
from typing import TYPE_CHECKING, Any

from psycopg import Error

from singer_postgres.core.change_columns import CHANGE_COLUMNS, old_key
from singer_postgres.core.errors import StateAheadError, one_line
from singer_postgres.core.read_report import ReadReport
from singer_postgres.core.warehouse import brief_locks, schema_changes, tables
from singer_postgres.core.warehouse.change_history import ChangeHistory
from singer_postgres.core.warehouse.followed_streams import FollowedStreams
from singer_postgres.core.warehouse.log_merge import LogMerge
from singer_postgres.core.warehouse.metadata_columns import Stamp
from singer_postgres.core.warehouse.row_counts import RowCounts
from singer_postgres.core.wire import refuse_own_name
from singer_postgres.target import stage_columns
from singer_postgres.target.stream_load import StreamLoad

if TYPE_CHECKING:
    from collections.abc import Sequence

    import psycopg
    from psycopg import sql

    from singer_postgres.core.warehouse.schema_changes import Change
    from singer_postgres.core.wire import BatchOrigin, Cut

    Connection = psycopg.Connection[Any]

_LOGGER = logging.getLogger("target-postgres")


class LogStreamLoad(StreamLoad):
    """A LOG_BASED stream that is being loaded. Its changes are merged by `LogLoader`, with those of all others."""

    def _open(self, connection: Connection, origin: BatchOrigin) -> Sequence[Change]:
        changes = super()._open(connection, origin)
        if not origin.resumed:
            # a first load finds no rows that were deleted since an earlier one
            is_empty = tables.is_empty(connection, self.schema, self.table.name)
            why = None if is_empty else "rows that were deleted before it followed the log may be left"
            self._followed.doubt(connection, self.table.source, self.stream, why)
        return changes

    @property
    def _followed(self) -> FollowedStreams:
        return FollowedStreams(self.schema)

    def open_log(self, connection: Connection, cut: Cut) -> None:
        """Prepare the table for changes of the log: the stream is loaded already.

        Raises:
            BusyError: another run loads the table.
            SingerPostgresError: the table can't hold the rows, or has not been loaded.
        """
        refuse_own_name(self.stream, self.table.name)
        self._run.lock.take(self.stream, self.schema, self.table.name)
        self._state.ensure(connection)
        schema_changes.TABLE.ensure(connection, self.schema)
        self.history.ensure(connection)
        changes = brief_locks.with_brief_locks(connection, lambda: self._open_log(connection, cut), table=self._target)
        for change in changes:
            _LOGGER.warning("%s.%s: %s", self.schema, self.table.name, change)

    def _open_log(self, connection: Connection, cut: Cut) -> Sequence[Change]:
        self._types = tables.types_here(connection, self.table)
        if self.stream not in cut.loaded and not self._followed.follows(connection, self.stream, self.table, cut.slot):
            msg = (
                f"State says that {self.stream} follows the slot {cut.slot}, and the warehouse does not have it up to "
                f"there: `tidemark slots repair {self.stream}` compares it with the source and brings it back, or "
                f"`tidemark state rewind {self.stream} --to beginning` has it loaded again."
            )
            raise StateAheadError(msg)
        before = self._state.columns(connection, self.stream, self.table)
        self._ensured = tables.ensure_table(
            connection, self.schema, self.table, before=before, partitioning=self._partitioning
        )
        if self._changes is not None:
            self._changes.ensure(connection, self._types)
            if self.stream not in cut.loaded:
                self._changes.go_on(connection, cut)
        else:
            ChangeHistory(self.schema, self.table).end(connection, cut)
        self._state.claim_for_run(
            connection, self.stream, self.table, run_id=self._run.id, columns=self._ensured.columns, lsn=cut.start
        )
        self.history.begin(connection, bookmark=cut.start)
        schema_changes.record(connection, self.history, self._ensured.changes)
        return self._ensured.changes

    @cached_property
    def _changes(self) -> ChangeHistory | None:
        """The history of the stream's changes, if it is to be kept."""
        return ChangeHistory(self.schema, self.table) if self.table.history else None

    def log_merge(self, connection: Connection, stage: sql.Composable, latest: LogStreamLoad) -> LogMerge:
        """Return the merge of this stream's changes from a stage.

        Args:
            latest: the stream by its latest description, to which the table is altered by now.
        """
        columns, key, types, casts = self._columns, self.table.key, self._types, self._casts
        if latest is not self:
            stage_columns.follow(connection, stage, self.table, latest.table, latest._types)
            names = stage_columns.renamed(self.table, latest.table)
            later = [column.name for column in stage_columns.added(self.table, latest.table)]
            columns = [*(names.get(name, name) for name in columns), *later]
            key = tuple(names.get(name, name) for name in key)
            types, casts = (
                {**{names.get(name, name): type_ for name, type_ in each.items()}, **now}
                for each, now in ((types, latest._types), (casts, latest._casts))
            )
            # columns that were widened since
            casts |= {
                now: latest._types[now]
                for name, type_ in self._types.items()
                if (now := names.get(name, name)) not in casts and latest._types.get(now, type_) != type_
            }
        return LogMerge(
            stage=stage,
            target=self._target,
            columns=columns,
            key=key,
            types=types,
            casts=casts,
            hard_delete=self._run.hard_delete,
            make_room=latest._make_room,
            is_partitioned=latest._partitions is not None,
            commits=latest.table.commits,
            history=latest._changes,
        )

    def log_stage(self, connection: Connection) -> dict[str, str]:
        """Return the columns of a stage of changes, with their types."""
        types = tables.types_here(connection, self.table)
        old = {old_key(number): types[name] for number, name in enumerate(self.table.key, 1)}
        return {**CHANGE_COLUMNS, **old, **types}

    def expire(self, connection: Connection, cut: Cut) -> None:
        """Delete changes that are older than `change_history_days`, once the run's last cut is committed."""
        days = self._run.change_history_days
        if self._changes is None or not days:
            return
        try:
            self._changes.expire(connection, cut.at, days)
        except Error as error:
            _LOGGER.warning("Expired changes of %s are left to the next run: %s", self.stream, one_line(error))

    def log_stamp(self, cut: Cut) -> Stamp:
        """Return the metadata of rows of a cut."""
        return Stamp(cut.at, round(time.time() * 1000), self._run.sync_started_at)

    def doubted(self, connection: Connection, why: str) -> None:
        """Note that rows may differ from the source's, although all changes were merged."""
        self._followed.doubt(connection, self.table.source, self.stream, why)
        repair = f"`tidemark slots repair {self.stream}` compares them"
        _LOGGER.warning("Rows of %s may differ from the source's: %s; %s.", self.stream, why, repair)

    def merged(self, connection: Connection, cut: Cut, written: RowCounts, *, bytes_: int) -> None:
        """Count the rows of a cut, in its transaction; note that the stream follows the slot."""
        self._state.assert_owner(connection, self.stream, self.table, run_id=self._run.id)
        self._followed.follow(
            connection, self.stream, self.table, slot=cut.slot, is_loading=False, has_rows=written.inserted > 0
        )
        if self._changes is not None and self.stream in cut.loaded:
            self._changes.begin(connection, cut.end, cut.at)
        if written != RowCounts():
            self.history.count(connection, written, bytes_=bytes_)
        if cut.last:
            self.history.end(
                connection, bookmark=cut.end, extracted_at=cut.at, work=self.effort.with_report(ReadReport())
            )
