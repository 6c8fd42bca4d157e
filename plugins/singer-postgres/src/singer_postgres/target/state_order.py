"""Decides which state the target may write: never one that is ahead of the committed rows. Pure.

Chunks and batches of records are numbered in order of arrival. A state can be written once everything that came before
it is committed. If a stream fails, every later state keeps the bookmark that the stream had before the failure.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import Any

State = dict[str, Any]


@dataclass
class StateOrder:
    """The states that have arrived, in order, and how far everything before them is committed."""

    submitted: int = 0
    _committed: int = 0
    _early: set[int] = field(default_factory=set)
    _waiting: deque[tuple[int, State]] = field(default_factory=deque)
    _latest: State = field(default_factory=dict)
    _before: dict[int, State] = field(default_factory=dict)
    """For each uncommitted chunk or batch: the last state that came before it."""
    _held: dict[str, tuple[int, Any]] = field(default_factory=dict)
    """For each failed stream: the number of its first failed chunk or batch, and the bookmark before it."""

    def submit(self) -> int:
        """Return a number for a chunk or batch that has arrived."""
        self.submitted += 1
        self._before[self.submitted] = self._latest
        return self.submitted

    def commit(self, number: int) -> None:
        """Note that a chunk or batch is committed."""
        self._before.pop(number, None)
        if number > self._committed:
            self._early.add(number)
        while self._committed + 1 in self._early:
            self._committed += 1
            self._early.discard(self._committed)

    def fail(self, number: int, stream: str) -> None:
        """Note that a chunk of `stream` failed. The stream keeps its bookmark, and other streams' states don't wait."""
        if stream not in self._held or number < self._held[stream][0]:
            bookmarks = self._before.get(number, {}).get("bookmarks", {})
            self._held[stream] = number, bookmarks.get(stream)
        self.commit(number)

    def came(self, state: State) -> None:
        """Add a state that has arrived."""
        self._latest = state
        self._waiting.append((self.submitted, state))

    def to_tell(self) -> State | None:
        """Return the newest state that may be written now, if it is a new one."""
        newest = None
        while self._waiting and self._waiting[0][0] <= self._committed:
            _, newest = self._waiting.popleft()
        return newest and self._with_held(newest)

    def _with_held(self, state: State) -> State | None:
        if not self._held:
            return state
        if not isinstance(state.get("bookmarks"), dict):
            # a tap that keeps its state in another form: its failed stream's part can't be found
            return None
        bookmarks = dict(state["bookmarks"])
        for stream, (_, bookmark) in self._held.items():
            bookmarks.pop(stream, None)
            if bookmark is not None:
                bookmarks[stream] = bookmark
        return {**state, "bookmarks": bookmarks}
