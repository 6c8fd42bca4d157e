"""Decides what follows from how the reading of a range ended: for the range, for its stream and for its snapshot."""

from __future__ import annotations

import logging
import random
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

import psycopg2

from singer_postgres.core import driver_errors
from singer_postgres.core.errors import LockBusyError, SingerPostgresError
from singer_postgres.tap.chunk_files import ChunkWriter
from singer_postgres.tap.locks import LockedError, ReadInterruptedError
from singer_postgres.tap.range_lease import StaleError
from singer_postgres.tap.snapshots import ChangedError
from singer_postgres.tap.worker_count import Crowded

if TYPE_CHECKING:
    from collections.abc import Iterator

    from singer_postgres.tap.range_lease import RangeLease
    from singer_postgres.tap.range_queue import RangeQueue

_LOGGER = logging.getLogger("tap-postgres")
# how often a stream restarts after broken connections
_MOST_EPOCHS = 4
# how often in a row a range is interrupted for sessions that wait for its table
_MOST_YIELDS = 8


class RangeOutcomes:
    """What workers report to the queue."""

    def __init__(self, ranges: RangeQueue) -> None:
        """Change the ranges of `ranges`."""
        self._queue = ranges

    @contextmanager
    def of(self, lease: RangeLease) -> Iterator[None]:
        """Handle the outcome of reading a range, for the range and for its stream.

        Errors of the stream end here: the range is read later, its stream restarts, or its stream fails.

        Raises:
            Crowded: there is no connection to read it on. Another worker has one and reads the range.
        """
        try:
            yield
        except Crowded:
            self._not_read(lease)
            raise
        except StaleError:
            # the stream has restarted and reads the range again, or it has failed
            pass
        except ChunkWriter.Overflow:
            self._cut(lease)
        except LockedError as error:
            self._locked_out(lease, str(error))
        except ReadInterruptedError as error:
            self._gave_way(lease, str(error))
        except ChangedError as error:
            self._table_changed(lease, str(error))
        except (psycopg2.Error, SingerPostgresError) as error:
            if isinstance(error, psycopg2.Error) and driver_errors.is_transient(error):
                self._broke(lease, error)
            else:
                self._queue.fail(lease.stream, error)
        else:
            self._done(lease)
        finally:
            lease.release_snapshot()

    def _done(self, lease: RangeLease) -> None:
        with self._queue.changed:
            lease.stream.yields = lease.stream.breaks = 0
            lease.stream.progress_at = time.monotonic()
            self._queue.finish(lease)

    def _not_read(self, lease: RangeLease) -> None:
        """Leave an unread range to another worker."""
        with self._queue.changed:
            self._queue.put_back(lease)

    def _cut(self, lease: RangeLease) -> None:
        """Cut what turned out to be far more than was expected."""
        with self._queue.changed:
            if not lease.epoch.is_reading:
                return
            self._queue.put_back(lease, cut=True)
            if lease.announced:
                # the chunks of one snapshot must contain each row once
                self._queue.retire(lease.stream)

    def _locked_out(self, lease: RangeLease, locked_by: str) -> None:
        """Put back a range of a table that is locked, or that another session waits for."""
        stream = lease.stream
        error = self._queue.pause(stream.pause, stream.plan, locked_by)
        with self._queue.changed:
            self._queue.leave_out(stream, error) if error is not None else self._queue.put_back(lease)

    def _gave_way(self, lease: RangeLease, waiter: str) -> None:
        """Put back a range that was interrupted because another session waited for its table."""
        stream, plan = lease.stream, lease.stream.plan
        with self._queue.changed:
            if not lease.epoch.is_reading:
                return
            stream.yields += 1
            stream.pause.longer()
            what = f"Reading {plan.stream} released {stream.relation} for a waiting session, {waiter}"
            why = None
            if lease.announced and plan.method == "INCREMENTAL" and not plan.key:
                why = "; without a primary key it can't resume, because rows would be loaded twice"
            elif stream.yields > _MOST_YIELDS:
                why = f", {stream.yields} times in a row"
            if why is not None:
                self._queue.leave_out(
                    stream, LockBusyError(f"{what}{why}. Run this again when that session has ended.")
                )
                return
            _LOGGER.info("A range is read again: reason=%s", what)
            if lease.announced:
                # the chunks of one snapshot must contain each row once
                self._queue.begin_again(lease)
            else:
                self._queue.put_back(lease)

    def _table_changed(self, lease: RangeLease, change: str) -> None:
        """Restart a stream after its table changed."""
        with self._queue.changed:
            if lease.epoch.is_reading:
                _LOGGER.warning("Reading restarts: stream=%s, reason=%s", lease.stream.plan.stream, change)
                self._queue.begin_again(lease)

    def _broke(self, lease: RangeLease, error: psycopg2.Error) -> None:
        """Read a range again under a new snapshot after its connection broke; a FULL_TABLE stream restarts."""
        stream, plan = lease.stream, lease.stream.plan
        why = None
        if plan.method == "INCREMENTAL" and not plan.key:
            # with a key, rows that are read again replace the rows of the old snapshot
            why = "; without a primary key it can't resume, because rows would be loaded twice. Run this again"
        elif stream.epoch.number >= _MOST_EPOCHS:
            why = f", in {stream.epoch.number + 1} attempts"
        elif stream.breaks >= driver_errors.TRIES - 1:
            why = ""
        failed = self._queue.queries.wrap_error(error, plan, why) if why is not None else None
        with self._queue.changed:
            if not lease.epoch.is_reading:
                return
            if failed is not None:
                self._queue.leave_out(stream, failed)
                return
            wait_s = random.uniform(0, driver_errors.longest_wait_s(stream.breaks))  # noqa: S311 - no secret
            self._queue.queries.note_retry(plan, error, wait_s)
            stream.breaks += 1
            stream.pause.until = max(stream.pause.until, time.monotonic() + wait_s)
            self._queue.begin_again(lease)
