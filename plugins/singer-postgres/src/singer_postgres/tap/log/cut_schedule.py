"""When to cut the log: changes between two cuts reach the warehouse in one transaction."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from datetime import datetime

# how often the position is confirmed if no stream has changes
_IDLE_S = 5.0
# how often a cut is made where the source writes nothing at all
_QUIET_S = 60.0
# After so much WAL the position is confirmed too. While a server reads far behind, what it keeps follows the confirmed
# positions one by one, so few of them would leave it with much.
_IDLE_BYTES = 2**28
# The longest time from a change to its cut. An idle machine decodes a million changes in that time. On a busy one, the
# warehouse merges a smaller cut meanwhile.
_LONGEST_S = 8.0


class CutSchedule:
    """Says when a cut is due, at the end of a transaction.

    A cut is due some time after its first change. While the log is read behind the source, that time is as long as it
    is behind: what comes late anyway comes in fewer, larger cuts, for which the warehouse writes less, because rows on
    one page share its image in the WAL.

    Attributes:
        rows: the number of changes since the last cut.
        first_commit_at: when the first of them was committed; None if there is none.
        behind_s: how old the last transaction was when it was read; 0 if all of the log was read.
    """

    def __init__(self, *, rows: int, flush_s: float) -> None:
        """Start after a cut.

        Args:
            rows: the number of changes with which a cut is due at once.
            flush_s: how long after its first change a cut is due.
        """
        self._full_rows, self._flush_s = rows, flush_s
        self.behind_s = 0.0
        self.first_commit_at: datetime | None = None
        self.cut()

    def cut(self) -> None:
        """Note that a cut was made."""
        self.rows, self.first_commit_at = 0, None
        self._made_at = self._first_change_at = time.monotonic()

    def change(self, committed_at: datetime) -> None:
        """Note a change."""
        self.rows += 1
        if self.first_commit_at is None:
            self.first_commit_at, self._first_change_at = committed_at, time.monotonic()

    def is_due(self, passed_bytes: int, *, is_merged: bool) -> bool:
        """Return whether a cut is due.

        Args:
            passed_bytes: the log since the last cut.
            is_merged: the warehouse has the last cut.
        """
        if self.rows >= self._full_rows:
            return True
        if not is_merged:
            # what comes meanwhile makes one larger cut
            return False
        now = time.monotonic()
        if self.rows:
            wait_s = max(self._flush_s, min(self.behind_s, _LONGEST_S))
            return now - self._first_change_at >= wait_s
        # changes of other tables, whose WAL the source need not keep
        is_far = passed_bytes >= _IDLE_BYTES
        is_late = now - self._made_at >= max(_IDLE_S, self._flush_s)
        # where nothing was written, the warehouse is as fresh as the source's clock
        is_quiet = now - self._made_at >= max(_QUIET_S, self._flush_s)
        return is_quiet or (passed_bytes > 0 and (is_far or is_late))
