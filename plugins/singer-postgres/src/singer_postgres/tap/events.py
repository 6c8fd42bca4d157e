"""Events from the workers, which read streams, to the thread that writes messages."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from singer_postgres.core.source.stream_query import ReadColumns
    from singer_postgres.core.wire import Changes, Chunk, Cut, EmptyRange, StreamEnd, Table
    from singer_postgres.tap.storage import Storage
    from singer_postgres.tap.stream_plan import StreamPlan


@dataclass(frozen=True)
class Opened:
    """A stream is about to be read.

    Attributes:
        rows_estimate: the number of its rows that are left to read; None if only its changes are read.
        seen: if an earlier run has read it in part: the transaction id that `ReadColumns.seen` was in the first such
            run.
    """

    plan: StreamPlan
    table: Table
    columns: ReadColumns
    rows_estimate: float | None
    seen: str | None = None


@dataclass(frozen=True)
class Read:
    """A chunk is complete.

    Attributes:
        rows: the rows read since the last chunk of the same range.
    """

    plan: StreamPlan
    chunk: Chunk
    path: Path
    rows: int = 0


@dataclass(frozen=True)
class Empty:
    """A range of a first load holds no rows."""

    plan: StreamPlan
    empty: EmptyRange


@dataclass(frozen=True)
class Finished:
    """A whole stream was read."""

    plan: StreamPlan
    end: StreamEnd


@dataclass(frozen=True)
class Failed:
    """A stream failed; if `plan` is None, the whole run."""

    error: Exception
    plan: StreamPlan | None


@dataclass(frozen=True)
class ChangesRead:
    """A file of changes of a LOG_BASED stream is complete."""

    plan: StreamPlan
    changes: Changes
    path: Path


@dataclass(frozen=True)
class CutReached:
    """All LOG_BASED streams are read up to a position.

    Attributes:
        complete: the streams whose first load is complete at the cut, each with its storage.
    """

    cut: Cut
    complete: tuple[tuple[StreamPlan, Storage | None], ...]
    plan: None = None


Event = Opened | Read | Empty | Finished | Failed | ChangesRead | CutReached
