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
        doubt: why its rows may differ from the source's, although the log is followed; None if nothing says so.
        loaded_lsn: the position that its first load has reached; None while that is being read.
        relation: how the log described the table last.
        rows: writes its changes.
        buffer: rows of changes that are not in a file yet.
    """

    plan: StreamPlan
    table: Table
    columns: ReadColumns
    is_binary: bool
    is_loading: bool
    storage: Storage | None = None
    doubt: Doubt | None = None
    loaded_lsn: int | None = None
    relation: RelationMessage | None = None
    rows: ChangeRows | None = None
    buffer: bytearray = field(default_factory=bytearray)
    count: int = 0

    def truncated(self) -> None:
        """Note that the log tells of a TRUNCATE, which gives the table other files."""
        self.storage = None
        if self.doubt and self.doubt.is_rewrite:
            self.doubt = None
