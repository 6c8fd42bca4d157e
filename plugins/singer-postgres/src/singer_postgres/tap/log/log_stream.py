"""A LOG_BASED stream as it is followed: its table as the log has it now, and its changes that are in no file yet."""

from __future__ import annotations

from dataclasses import dataclass, field
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
        rows: writes its changes.
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
    rows: ChangeRows | None = None
    buffer: bytearray = field(default_factory=bytearray)
    count: int = 0

    def take_alteration(self) -> bool:
        """Take the description of the table as it is now; return whether it is another one.

        The caller has read the log up to where the run began. Without a change up to there, nothing before it has the
        earlier columns.
        """
        if self.altered is None or self.relation is not None:
            return False
        (self.table, self.columns), self.altered = self.altered, None
        return True

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
