"""What is asked of one stream: its columns, key, bookmark and conditions, as settings, catalog and state have them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from singer_postgres.core.source.backfill import Backfill
    from singer_postgres.core.source.stream_query import ReadColumns
    from singer_postgres.core.wire import BlockRange, Method
    from singer_postgres.tap.key_trail import KeyTrail


@dataclass(frozen=True)
class StreamPlan:
    """What is asked of one stream.

    Attributes:
        columns: the selected ones.
        key: the columns that tell rows apart.
        bookmark: the bookmark to read from; None to read from the beginning.
        first_load: of a first load that was cut short: its watermark, and the ranges that are loaded.
        columns_before: what of the table was read until then.
        trail: what was seen of a replication key that is not a time; of an open stream, what its state is to keep.
        backfill: what is read in place of all that; None if nothing is.
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
    columns_before: ReadColumns | None = None
    trail: KeyTrail | None = None
    masks: Mapping[str, str] = field(default_factory=dict)
    where: tuple[str, ...] = ()
    start_date: datetime | None = None
    allow_duplicates: bool = False
    backfill: Backfill | None = None

    @property
    def whole(self) -> bool:
        """Whether all rows are read."""
        return self.bookmark is None if self.backfill is None else self.backfill.is_all
