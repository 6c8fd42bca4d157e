"""What workers are given to do."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from singer_postgres.tap.locks import Pause
from singer_postgres.tap.stream_planning import OpenStream

if TYPE_CHECKING:
    from singer_postgres.core.source.relations import Leaf
    from singer_postgres.core.wire import BlockRange
    from singer_postgres.tap.epochs import Epoch
    from singer_postgres.tap.snapshots import Snapshot
    from singer_postgres.tap.stream_plan import StreamPlan

# a range of a stream: of which table, which blocks, and whether it may fill more than one file
Piece = tuple[OpenStream, "Leaf | None", "BlockRange | None", bool]


@dataclass(frozen=True)
class Task:
    """A range to read.

    Attributes:
        may_roll: it may fill more than one file.
        epoch: the stream's, when the range was handed out.
    """

    stream: OpenStream
    snapshot: Snapshot
    leaf: Leaf | None
    blocks: BlockRange | None
    may_roll: bool
    epoch: Epoch

    @property
    def piece(self) -> Piece:
        """The range, for another task."""
        return self.stream, self.leaf, self.blocks, self.may_roll

    @property
    def parts(self) -> list[int]:
        """The tables that it reads."""
        return list(self.stream.layout.parts) if self.leaf is None else [self.leaf.oid]


@dataclass(eq=False)
class Unopened:
    """A stream whose turn has not come, or whose table was locked when it came."""

    plan: StreamPlan
    pause: Pause = field(default_factory=Pause)
