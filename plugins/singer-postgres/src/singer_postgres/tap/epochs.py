"""An epoch is one reading of a stream from its beginning. A stream that has to begin again gets another one."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class EpochState(Enum):
    """What became of an epoch."""

    READING = "reading"
    FINISHED = "finished"
    RESTARTED = "restarted"
    """The table changed or a connection broke, and another epoch reads the stream from its beginning."""
    FAILED = "failed"


@dataclass(eq=False)
class Epoch:
    """One reading of a stream.

    Attributes:
        number: how many epochs of the stream came before.
        pending_ranges: the ranges that are not read yet.
        announced: a part of it is on its way to the target.
    """

    number: int = 0
    state: EpochState = EpochState.READING
    pending_ranges: int = 0
    announced: bool = False

    @property
    def is_reading(self) -> bool:
        """Whether what is read in it still counts."""
        return self.state is EpochState.READING

    def restarted(self) -> Epoch:
        """End this epoch; return the one that takes its place."""
        self.state = EpochState.RESTARTED
        return Epoch(self.number + 1)
