"""The values of a non-timestamp replication key that earlier runs saw. The stream's state keeps them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class KeyTrail:
    """What earlier runs saw of a key.

    Attributes:
        seen: instants of the source's clock, oldest first, each with the bookmark that would have been right for its
            run if no commit had been late. A value becomes the bookmark when its instant is a lookback ago.
        files: the file numbers of the key's sequence, which a restart changes, and of its table, which a TRUNCATE
            changes; 0 if there is no such file.
    """

    seen: tuple[tuple[str, str], ...] = ()
    files: tuple[int, int] = (0, 0)

    def to_json(self) -> list[Any]:
        """Return the value for the state. It is a list, because states merge objects key by key but replace lists."""
        return [[list(each) for each in self.seen], list(self.files)]

    @classmethod
    def from_json(cls, value: Any) -> KeyTrail:
        """Parse a value of `to_json`."""
        if not value:
            return cls()
        seen, (sequence, table) = value
        return cls(tuple((str(at), str(key)) for at, key in seen), (int(sequence), int(table)))
