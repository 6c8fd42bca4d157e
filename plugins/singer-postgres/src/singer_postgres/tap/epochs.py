"""An epoch is one pass over a stream from its beginning. A stream that restarts gets another epoch."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class EpochState(Enum):
    """The state of an epoch."""

    READING = "reading"
    FINISHED = "finished"
    RESTARTED = "restarted"
    """The table changed or a connection broke, and another epoch reads the stream from its beginning."""
    FAILED = "failed"


@dataclass(eq=False)
class Epoch:
    """One pass over a stream.

    Attributes:
        number: how many epochs of the stream came before.
        pending_ranges: the number of ranges still to read.
        announced: some of its chunks were announced to the target.
    """

    number: int = 0
    state: EpochState = EpochState.READING
    pending_ranges: int = 0
    announced: bool = False

    @property
    def is_reading(self) -> bool:
        """Whether rows that are read in it still count."""
        return self.state is EpochState.READING

    def restarted(self) -> Epoch:
        """End this epoch; return the one that replaces it."""
        self.state = EpochState.RESTARTED
        return Epoch(self.number + 1)
