"""Compares the WAL that the source keeps for the slot with `max_slot_wal_mb`: when a run begins, during it, at its end.

A run that begins over the budget reads on, because that is what frees the WAL. Only its end is judged, also if a target
that stood still brought it about.
"""

from __future__ import annotations

import time
from contextlib import closing
from typing import TYPE_CHECKING

from singer_postgres.core.errors import SingerPostgresError, SlotWalError, one_line
from singer_postgres.core.lsn import lsn_of
from singer_postgres.core.source import slot_wal
from singer_postgres.core.source.slot_wal import Level, SlotBudget, SlotWal, megabytes
from singer_postgres.core.sql_compat import Error

if TYPE_CHECKING:
    import logging
    from collections.abc import Callable

    from psycopg2.extensions import connection as Connection  # noqa: N812

_EVERY_S = 60.0


class SlotWatch:
    """The watch over one run's slot."""

    def __init__(
        self, budget: SlotBudget, slot: str, connect: Callable[[], Connection], logger: logging.Logger
    ) -> None:
        """Look at nothing yet."""
        self._budget, self._slot, self._connect, self._logger = budget, slot, connect, logger
        self._level = Level.within
        self._looked_at = time.monotonic()
        self._news: SlotWal | None = None

    def news(self, position: int) -> tuple[int, int] | None:
        """Return the WAL that is kept, and what comes after a position; None if nobody looked since the last call."""
        wal, self._news = self._news, None
        return (wal.retained_bytes, max(0, lsn_of(wal.end) - position)) if wal else None

    def look(self, connection: Connection) -> None:
        """Warn if half of the budget is used, or more than all; once for each."""
        self._looked_at = time.monotonic()
        wal = self._news = slot_wal.measure(connection, self._slot)
        level = self._budget.level(wal)
        if wal is not None and level > self._level:
            then = "; this run fails unless it catches up" if level is Level.over else ""
            self._logger.warning("Slot: %s%s.", self._budget.describe(self._slot, wal), then)
        self._level = level

    def now_and_then(self) -> None:
        """Look once a minute."""
        if time.monotonic() - self._looked_at >= _EVERY_S:
            self.look_again()

    def look_again(self) -> None:
        """Look. An error here ends no run: the session that streams the log has its own."""
        self._looked_at = time.monotonic()
        try:
            with closing(self._connect()) as connection:
                self.look(connection)
        except (Error, SingerPostgresError) as error:
            self._say_unseen(error)

    def at_end(self, failure: Exception | None) -> Exception | None:
        """Return the error with which the run ends, and drop the slot if it is over the budget and is to be dropped.

        Args:
            failure: the error so far.
        """
        if self._budget.mb is None:
            return failure
        try:
            with closing(self._connect()) as connection:
                wal = slot_wal.measure(connection, self._slot)
                if wal is None or self._budget.level(wal) is not Level.over:
                    return failure
                return self._spent(connection, wal, failure)
        except (Error, SingerPostgresError) as error:
            self._say_unseen(error)
            return failure

    def _say_unseen(self, error: Exception) -> None:
        if self._budget.mb is None:
            return
        self._logger.warning("Can't see how much WAL is kept for the slot %s: %s", self._slot, one_line(error))

    def _spent(self, connection: Connection, wal: SlotWal, failure: Exception | None) -> SlotWalError:
        what = self._budget.describe(self._slot, wal)
        if failure is not None:
            what = f"{what}, after this: {one_line(failure).rstrip('.')}"
        if self._budget.drops and slot_wal.drop(connection, self._slot):
            then = "The slot was dropped (max_slot_wal_action); `tidemark slots repair` makes it again"
            return SlotWalError(f"{what[0].upper()}{what[1:]}. {then} and brings its streams back.")
        oldest = slot_wal.oldest_writer(connection)
        held = f"; the oldest transaction is of {oldest.who}, {oldest.seconds:.0f} s old" if oldest else ""
        return SlotWalError(
            f"{what[0].upper()}{what[1:]}. Of that, {megabytes(wal.behind_bytes)} are still to be read{held}. Run this "
            "more often, end old transactions, or raise max_slot_wal_mb."
        )
