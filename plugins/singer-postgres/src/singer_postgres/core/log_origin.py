"""Which log a position belongs to: a server's, on one of its timelines."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from singer_postgres.core.lsn import lsn_of

if TYPE_CHECKING:
    from collections.abc import Sequence

# the timelines before one, each with the position at which the next one began
History = tuple[tuple[int, str], ...]


@dataclass(frozen=True)
class LogOrigin:
    """A server's log, which begins another timeline when a standby is promoted, or a backup restored.

    Attributes:
        system: the server's system identifier.
        timeline: the timeline's number. Two standbys of one server may both begin a timeline of the same number.
        history: the timelines before it.
    """

    system: str
    timeline: int
    history: History = ()

    def to_json(self) -> list[object]:
        """Return the value for a state."""
        return [self.system, self.timeline, [list(each) for each in self.history]]

    @classmethod
    def from_json(cls, value: Sequence[Any]) -> LogOrigin:
        """Parse a value of `to_json`."""
        system, timeline, history = value
        return cls(str(system), int(timeline), tuple((int(number), str(end)) for number, end in history))

    def goes_on_from(self, position: str, then: LogOrigin) -> bool:
        """Return whether this log has all that an earlier one had up to a position, and goes on from there.

        >>> first, second = LogOrigin("7", 1), LogOrigin("7", 2, ((1, "0/30"),))
        >>> second.goes_on_from("0/20", first), second.goes_on_from("0/40", first), first.goes_on_from("0/20", second)
        (True, False, False)
        """
        if self.system != then.system:
            return False
        if self.timeline == then.timeline:
            return self.history == then.history
        ends = dict(self.history)
        shared = tuple(each for each in self.history if each[0] < then.timeline)
        return shared == then.history and then.timeline in ends and lsn_of(position) <= lsn_of(ends[then.timeline])


def parse_history(text: str) -> History:
    r"""Parse a timeline's history file.

    >>> parse_history("1\t0/3000110\tno recovery target specified\n")
    ((1, '0/3000110'),)
    """
    rows = [line.split("\t") for line in text.splitlines() if line[:1].isdigit()]
    return tuple((int(number), end) for number, end, *_ in rows)
