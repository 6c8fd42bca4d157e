"""What earlier runs saw of a replication key that is not a time: kept in the stream's state."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class KeyTrail:
    """What earlier runs saw of a key, as the stream's state keeps it.

    Attributes:
        seen: instants of the source's clock, oldest first, each with the bookmark that its run would have been right
            with had nothing been late. One becomes the bookmark when it is a lookback old.
        files: the numbers of the files of the key's sequence, which a restart changes, and of its table, which a
            TRUNCATE changes; 0 where there is none.
    """

    seen: tuple[tuple[str, str], ...] = ()
    files: tuple[int, int] = (0, 0)

    def to_json(self) -> list[Any]:
        """Return it as states keep it: as a list, which is replaced where objects would be merged."""
        return [[list(each) for each in self.seen], list(self.files)]

    @classmethod
    def from_json(cls, value: Any) -> KeyTrail:
        """Read what `to_json` gave."""
        if not value:
            return cls()
        seen, (sequence, table) = value
        return cls(tuple((str(at), str(key)) for at, key in seen), (int(sequence), int(table)))
