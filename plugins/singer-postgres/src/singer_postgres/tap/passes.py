"""Decides whether what was read of a stream under several snapshots is all of it. Pure.

Under one snapshot, each row is in one range of blocks. Between two, an UPDATE can move a row from a range that is yet
to be read into one that was, and no range has it. Its new version was written after the first snapshot. So another pass
reads what was written since then, again in ranges, until a pass takes a single snapshot. Replication keys don't help: a
number stays as it is, and not every statement sets a time.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from singer_postgres.tap.snapshots import Snapshot


@dataclass
class Passes:
    """The passes over a stream.

    Attributes:
        since: a transaction id: this pass reads what was written by it and later ones; None for all rows.
        number: how many passes came before.
        again: all ranges were read before, and some of these rows came with them.
    """

    since: str | None = None
    number: int = 0
    again: bool = False
    _first: str | None = None
    """A transaction id: the pass's first snapshot sees all older transactions."""
    _under: str | None = None
    """The snapshot of the ranges that were read in this pass; empty if there were several."""

    @classmethod
    def resumed(cls, sees_before: str | None) -> Passes:
        """Return the passes of a stream that an earlier run has read in part, under snapshots from this one on."""
        return cls(_first=sees_before, _under="")

    def add(self, snapshot: Snapshot) -> None:
        """Note that a range was read under a snapshot."""
        if self._under is None:
            self._first, self._under = snapshot.sees_before, snapshot.id
        elif self._under != snapshot.id:
            self._under = ""

    @property
    def were_several(self) -> bool:
        """Whether this pass's ranges were read under several snapshots."""
        return self._under == ""

    @property
    def first(self) -> str | None:
        """Since when rows may have moved between ranges; None if the pass has read nothing."""
        return self._first

    def next(self) -> Passes:
        """Return the pass that reads what was written since this one's first snapshot."""
        return Passes(self._first, self.number + 1, again=True)

    def begun_again(self) -> Passes:
        """Return the first pass over a table that was rewritten meanwhile."""
        return Passes(again=self.again)
