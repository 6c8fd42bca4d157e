"""The whole reconciliation: compares each stream, and repairs it if the user asks for that."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import psycopg

from singer_postgres.core.errors import BusyError as LockedError
from singer_postgres.core.errors import SingerPostgresError, one_line
from singer_postgres.core.warehouse.connections import WarehouseConnector as TargetWarehouse
from singer_postgres.core.warehouse.run_lock import RunLock
from tidemark.errors import BusyError, TidemarkError, UnreachableError, UsageError
from tidemark.inspect import named_streams
from tidemark.inspect.reconcile.compare import compare, recheck
from tidemark.inspect.reconcile.following import Following
from tidemark.inspect.reconcile.pairing import Endpoints
from tidemark.inspect.reconcile.recorder import ReconcileRecorder
from tidemark.inspect.reconcile.repair import obstacle, refuse_deletes, repair
from tidemark.inspect.reconcile.result import ReconcileResult
from tidemark.project import connections, lock_watch

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from tidemark.inspect.check.streams import Stream
    from tidemark.inspect.reconcile.compare import Difference
    from tidemark.inspect.reconcile.pairing import Sessions
    from tidemark.project.directory import Project

_SNAPSHOT = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY"


@dataclass(frozen=True)
class ReconcileOptions:
    """The user's options. `since` is a value of the replication key, and without `source` all sources are meant.

    Attributes:
        command: what repairs a stream, as the user calls it.
        as_of_now: compare a LOG_BASED stream with the source as it is now, although its log has changes to come.
    """

    streams: tuple[str, ...] = ()
    source: str | None = None
    repair: bool = False
    since: str | None = None
    allowed_percent: float = 5
    command: str = "tidemark reconcile {} --repair"
    as_of_now: bool = False


def reconcile(
    project: Project, options: ReconcileOptions, *, began: Callable[[str], None], warn: Callable[[str], None]
) -> list[ReconcileResult]:
    """Compare the streams, repair the differences if asked to, and record the results.

    A source that can't be read does not stop the comparison of the others.

    Args:
        began: called with each stream's name before its comparison.
        warn: called once, with the reason, if results can't be recorded.

    Raises:
        UsageError: a named stream is not selected.
        BusyError: a run loads a stream that is to be repaired.
        TidemarkError: a database can't be reached or used.
    """
    meant = named_streams.by_source(project, options.streams, options.source)
    results: list[ReconcileResult] = []
    for source, names in meant.items():
        try:
            ends = Endpoints.of(project, source, names)
        except (UnreachableError, UsageError) as error:
            if names or len(meant) == 1:
                raise
            results.append(ReconcileResult(source, "*", error=one_line(error)))
            continue
        recorder = ReconcileRecorder(ends, since=options.since, warn=warn)
        with ends.sessions() as sessions:
            for name in names or sorted(ends.selected):
                began(source.shown(name))
                results.append(result_of(sessions, ends, name, options, recorder))
    return results


def result_of(  # noqa: PLR0913 - each argument has a name
    sessions: Sessions,
    ends: Endpoints,
    name: str,
    options: ReconcileOptions,
    recorder: ReconcileRecorder,
    *,
    is_locked: bool = False,
) -> ReconcileResult:
    """Compare a stream, repair it if asked to, and record the result.

    Args:
        is_locked: the caller holds the stream's lock.

    Raises:
        BusyError: a run loads a stream that is to be repaired.
    """
    source = ends.definition
    try:
        result = _stream(sessions, ends, ends.selected[name], options, is_locked=is_locked)
        if result.repaired:
            # which may have changed settings of theirs
            sessions.close()
    except LockedError as error:
        recorder.note(ReconcileResult(source, name, error=one_line(error)))
        raise BusyError(str(error)) from error
    except (TidemarkError, SingerPostgresError) as error:
        result = ReconcileResult(source, name, error=one_line(error))
    except psycopg.Error as error:
        result = ReconcileResult(source, name, error=f"{name}: {one_line(error)}")
    recorder.note(result)
    return result


def _stream(
    sessions: Sessions, ends: Endpoints, stream: Stream, options: ReconcileOptions, *, is_locked: bool
) -> ReconcileResult:
    """Compare one stream and repair it. Begin again if another session waited to alter one of its tables.

    Raises:
        TidemarkError: other sessions interrupted every attempt, or the stream can't be compared or repaired.
    """
    who = "another session interrupted it"
    for attempt in range(1, lock_watch.ATTEMPTS + 1):
        try:
            return _once(sessions, ends, stream, options, is_locked=is_locked)
        except lock_watch.SessionEndedError as error:
            who = f"{error} waited for its table"
        except psycopg.errors.LockNotAvailable:
            who = "its table was locked"
        if attempt < lock_watch.ATTEMPTS:
            time.sleep(lock_watch.PAUSE_S)
    raise TidemarkError(
        f"{stream.name} could not be compared in {lock_watch.ATTEMPTS} attempts, because {who}. Run this again when "
        "that is over."
    )


def _once(
    sessions: Sessions, ends: Endpoints, stream: Stream, options: ReconcileOptions, *, is_locked: bool
) -> ReconcileResult:
    with sessions.connected() as (source, warehouse), ends.giving_way(source, warehouse):
        followed = None if options.as_of_now else Following.of(ends, warehouse, stream)
        # the source's snapshot comes first, so that later rows in the warehouse can be told from extra ones
        source.execute(_SNAPSHOT)
        pair, table = ends.pair(source, warehouse, stream, since=options.since)
        source.execute("select pg_current_snapshot()")
        warehouse.execute(_SNAPSHOT)
        found = compare(source, warehouse, pair)
        source.execute("ROLLBACK")
        warehouse.execute("ROLLBACK")
        is_all = True

        def again(found: Difference) -> Difference:
            nonlocal is_all
            found = recheck(source, warehouse, pair, found)
            if followed is not None:
                found, is_all = followed.without_unloaded(
                    source, warehouse, pair, found, recheck=lambda each: recheck(source, warehouse, pair, each)
                )
            return found

        if pair.key:
            found = again(found)
        if not options.repair or found.equal:
            if followed is not None and found.equal and is_all:
                followed.is_right(warehouse)
            return ReconcileResult(ends.definition, stream.name, found)
        if not pair.key:
            raise TidemarkError(
                f"{stream.name} has no key, so rows can't be repaired one by one; a run reads it whole and replaces "
                "them."
            )
        lock = RunLock(TargetWarehouse(lambda: connections.parameters(ends.warehouse), pair.schema))
        try:
            if not is_locked:
                lock.take(stream.name, pair.schema, table.name)
            # Check again, now that no run can change the table, and under one snapshot: of a stream that is followed,
            # rows that change from now on come by the log.
            source.execute(_SNAPSHOT)
            found = again(found)
            refuse_deletes(stream.name, found, allowed_percent=options.allowed_percent, command=options.command)
            written = repair(source, warehouse, pair, table, stream=stream.name, found=found)
            source.execute("ROLLBACK")
            left = again(found)
            why = "" if left.equal else obstacle(warehouse, pair, table)
            if followed is not None and left.equal and is_all:
                followed.is_right(warehouse)
        finally:
            lock.close()
    return ReconcileResult(ends.definition, stream.name, found, written, left, why)


def names(results: Sequence[ReconcileResult]) -> str:
    """Return the names of the streams that differ."""
    return " ".join(result.name for result in results if not result.equal and result.error is None)
