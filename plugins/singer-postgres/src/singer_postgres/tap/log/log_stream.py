"""A LOG_BASED stream as it is followed: its table as the log has it now, and its changes that are in no file yet."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from singer_postgres.core.source.pgoutput import RelationMessage
    from singer_postgres.core.source.stream_query import ReadColumns
    from singer_postgres.core.wire import Table
    from singer_postgres.tap.log.change_rows import ChangeRows
    from singer_postgres.tap.storage import Doubt, Storage
    from singer_postgres.tap.stream_plan import StreamPlan


@dataclass(eq=False)
class LogStream:
    """One stream of the log.

    Attributes:
        table: its description for the target.
        columns: its description for the state.
        is_binary: its changes can travel in binary form.
        is_loading: its first load is not complete, so its changes wait in the warehouse.
        storage: where its rows are in the source, for the state; None if a TRUNCATE is changing that.
        earlier_storage: that of the last run; None if unknown.
        doubt: why its rows may differ from the source's, although the log is followed; None if nothing says so.
        loaded_lsn: the position that its first load has reached; None while that is being read.
        relation: how the log described the table last.
        altered: its description now, if it was altered since the last run. The log tells of that with the next change.
        republished: the transaction that published it by another condition since then, and that condition. The state
            has those of before until the log has passed that, so that a doubt which was settled too early comes again.
        rows: writes its changes.
        skip_before: its rows have all transactions that committed before this position.
        buffer: rows of changes that are not in a file yet.
    """

    plan: StreamPlan
    table: Table
    columns: ReadColumns
    is_binary: bool
    is_loading: bool
    storage: Storage | None = None
    earlier_storage: Storage | None = None
    doubt: Doubt | None = None
    loaded_lsn: int | None = None
    relation: RelationMessage | None = None
    altered: tuple[Table, ReadColumns] | None = None
    republished: tuple[str, tuple[str, ...]] | None = None
    rows: ChangeRows | None = None
    skip_before: int = 0
    buffer: bytearray = field(default_factory=bytearray)
    count: int = 0

    def reached_start(self) -> bool:
        """Take what was found when the run began, and the log has passed by now; return whether it changes anything.

        Without a change of the table up to there, nothing before it has the earlier columns.
        """
        was = self.table, self.columns
        if self.altered is not None and self.relation is None:
            self.table, columns = self.altered
            self.columns = replace(columns, where=self.columns.where, published=self.columns.published)
            self.altered = None
        if self.republished is not None:
            published, where = self.republished
            self.columns, self.republished = replace(self.columns, where=where, published=published), None
        return was != (self.table, self.columns)

    def truncated(self) -> None:
        """Note that the log tells of a TRUNCATE, which gives the table other files."""
        self.storage = None
        if self.doubt and self.doubt.is_rewrite:
            self.doubt = None

    def told(self, *, last: bool) -> tuple[str | None, Storage | None]:
        """Return what a cut tells of the stream: why its rows may differ, and the storage for the state.

        A TRUNCATE that explains a rewrite may still come, up to the last cut. Until then, the state has the storage of
        the run before: if this one is killed, the next one finds the rewrite again.
        """
        if self.doubt is None or (self.doubt.is_rewrite and not last):
            return None, self.storage if self.doubt is None else self.earlier_storage
        return self.doubt.why, self.storage
