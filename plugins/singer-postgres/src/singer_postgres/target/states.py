"""Which state may be told: never one that is ahead of what is committed. Pure.

Chunks and batches of records are numbered as they come. A state holds once all that came before it are committed.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import Any


@dataclass
class States:
    """The states that came, in order, and how much of what came before them is committed."""

    submitted: int = 0
    _committed: int = 0
    _early: set[int] = field(default_factory=set)
    _waiting: deque[tuple[int, dict[str, Any]]] = field(default_factory=deque)

    def submit(self) -> int:
        """Return the number of a chunk that has come."""
        self.submitted += 1
        return self.submitted

    def commit(self, number: int) -> None:
        """Note that a chunk is committed."""
        self._early.add(number)
        while self._committed + 1 in self._early:
            self._committed += 1
            self._early.discard(self._committed)

    def came(self, state: dict[str, Any]) -> None:
        """Take a state in."""
        self._waiting.append((self.submitted, state))

    def to_tell(self) -> dict[str, Any] | None:
        """Return the newest state that holds and was not returned before, if there is one."""
        newest = None
        while self._waiting and self._waiting[0][0] <= self._committed:
            _, newest = self._waiting.popleft()
        return newest
