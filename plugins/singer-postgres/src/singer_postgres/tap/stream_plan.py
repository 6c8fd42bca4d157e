"""The plan of one stream: its columns, key, bookmark and conditions, from settings, catalog and state."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from singer_postgres.core.wire import Table

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from singer_postgres.core.load_part import LoadPart
    from singer_postgres.core.source.backfill import Backfill
    from singer_postgres.core.source.stream_query import ReadColumns, StreamQuery
    from singer_postgres.core.wire import BlockRange, Method
    from singer_postgres.tap.key_trail import KeyTrail


@dataclass(frozen=True)
class StreamPlan:
    """What to read of one stream.

    Attributes:
        columns: the selected columns.
        key: the columns that identify a row.
        bookmark: the bookmark to read from; None to read from the beginning.
        first_load: the watermark of an unfinished first load, and the ranges already loaded.
        compared_at: the position of the log after which `tidemark slots repair` made the rows equal to the source's;
            None if it did not.
        columns_before: what earlier runs read of the table.
        trail: the values of a non-timestamp replication key that earlier runs saw; once the stream is open, those for
            the next state.
        backfill: the rows to read instead; None in a normal run.
        part: the part of a first load to read instead; None for all of it.
        commits, history: see `wire.Table`.
    """

    stream: str
    schema: str
    name: str
    method: Method
    columns: tuple[str, ...]
    key: tuple[str, ...]
    replication_key: str | None = None
    bookmark: str | None = None
    first_load: tuple[str | None, tuple[BlockRange, ...]] | None = None
    compared_at: str | None = None
    columns_before: ReadColumns | None = None
    trail: KeyTrail | None = None
    masks: Mapping[str, str] = field(default_factory=dict)
    where: tuple[str, ...] = ()
    start_date: datetime | None = None
    allow_duplicates: bool = False
    backfill: Backfill | None = None
    part: LoadPart | None = None
    commits: bool = False
    history: bool = False

    @property
    def whole(self) -> bool:
        """Whether the plan is to read all rows."""
        return self.bookmark is None if self.backfill is None else self.backfill.is_all

    def described(self, source: str, selection: StreamQuery) -> tuple[Table, ReadColumns]:
        """Return the description of the stream for the target, and the one for the state.

        Args:
            source: the source's identity; see `identity.identity`.
            selection: what is read of its table.
        """
        columns = selection.read_columns()
        table = Table(
            source,
            self.schema,
            self.name,
            selection.wire_columns(),
            self.key,
            self.method,
            selection.binary,
            table_oid=columns.table_oid,
            max_attnum=columns.max_attnum,
            commits=self.commits,
            history=self.history,
        )
        return table, columns
