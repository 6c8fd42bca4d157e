"""Which state may be told: never one that is ahead of what is committed. Pure.

Chunks and batches of records are numbered as they come. A state holds once all that came before it are committed. Of a
stream that failed, every later state has the bookmark that it had before what failed.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import Any

State = dict[str, Any]


@dataclass
class StateOrder:
    """The states that came, in order, and how much of what came before them is committed."""

    submitted: int = 0
    _committed: int = 0
    _early: set[int] = field(default_factory=set)
    _waiting: deque[tuple[int, State]] = field(default_factory=deque)
    _latest: State = field(default_factory=dict)
    _before: dict[int, State] = field(default_factory=dict)
    """By number of what is not yet committed: the state that came last before it."""
    _held: dict[str, tuple[int, Any]] = field(default_factory=dict)
    """By stream that failed: the number of what failed first, and the bookmark before it."""

    def submit(self) -> int:
        """Return the number of a chunk that has come."""
        self.submitted += 1
        self._before[self.submitted] = self._latest
        return self.submitted

    def commit(self, number: int) -> None:
        """Note that a chunk is committed."""
        self._before.pop(number, None)
        if number > self._committed:
            self._early.add(number)
        while self._committed + 1 in self._early:
            self._committed += 1
            self._early.discard(self._committed)

    def fail(self, number: int, stream: str) -> None:
        """Note that a chunk of `stream` never will be: its bookmark stays, and others' states don't wait for it."""
        if stream not in self._held or number < self._held[stream][0]:
            bookmarks = self._before.get(number, {}).get("bookmarks", {})
            self._held[stream] = number, bookmarks.get(stream)
        self.commit(number)

    def came(self, state: State) -> None:
        """Take a state in."""
        self._latest = state
        self._waiting.append((self.submitted, state))

    def to_tell(self) -> State | None:
        """Return the newest state that holds and was not returned before, if there is one."""
        newest = None
        while self._waiting and self._waiting[0][0] <= self._committed:
            _, newest = self._waiting.popleft()
        return newest and self._with_held(newest)

    def _with_held(self, state: State) -> State | None:
        if not self._held:
            return state
        if not isinstance(state.get("bookmarks"), dict):
            # of a tap that keeps its state otherwise: nothing tells what of it is the failed stream's
            return None
        bookmarks = dict(state["bookmarks"])
        for stream, (_, bookmark) in self._held.items():
            bookmarks.pop(stream, None)
            if bookmark is not None:
                bookmarks[stream] = bookmark
        return {**state, "bookmarks": bookmarks}
