"""Sends the changes of LOG_BASED streams as records, to targets and stream maps that need single rows.

Such a target acknowledges nothing. What it has written is known when a run begins with the state that it stored: up to
there the slot is confirmed, and what comes after it is sent again. So each change arrives at least once.

The streams are read from their tables one after the other, as the SDK asks for them, and then followed together.
"""

from __future__ import annotations

import copy
import time
from contextlib import ExitStack, closing
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import psycopg2
from singer_sdk.singerlib import Catalog, Metadata, Schema

from singer_postgres.core.errors import LogUnfitError, SingerPostgresError, SlotAheadError
from singer_postgres.core.log_origin import LogOrigin
from singer_postgres.core.lsn import lsn_of, lsn_text
from singer_postgres.core.source import log_tables, pgoutput, relations
from singer_postgres.core.stop_file import StopFile
from singer_postgres.tap.log import masking, record_values
from singer_postgres.tap.log.change_records import DELETED_AT, LSN, ChangeRecords
from singer_postgres.tap.log.kept_session import KeptSession
from singer_postgres.tap.log.log_progress import LogProgress

if TYPE_CHECKING:
    import logging
    from collections.abc import Callable, Sequence

    from singer_sdk.metrics import Counter

    from singer_postgres.core.source.pgoutput import RelationMessage
    from singer_postgres.tap.connections import SourceConnector
    from singer_postgres.tap.log.log_run import LogRun
    from singer_postgres.tap.log.log_stream import LogStream
    from singer_postgres.tap.log.replication import Replication
    from singer_postgres.tap.running import LogBasedStream
    from singer_postgres.tap.stream_plan import StreamPlan

_TICK_S = 0.2
# the SDK's, too
_STATE_EVERY_RECORDS = 10_000
_CHANGES = {pgoutput.INSERT, pgoutput.UPDATE, pgoutput.DELETE}
_EPOCH = datetime(2000, 1, 1, tzinfo=UTC)
# the columns that records have beside the table's
COLUMNS: dict[str, dict[str, Any]] = {
    DELETED_AT: {"type": ["string", "null"], "format": "date-time"},
    LSN: {"type": ["integer", "null"]},
}


def described(catalog: Catalog) -> Catalog:
    """Return the catalog with LOG_BASED streams as their records are: with two more columns, and nulls everywhere.

    The record of a deleted row has only the columns that identify it.
    """
    made = Catalog(catalog)
    for name, entry in catalog.items():
        if entry.replication_method != "LOG_BASED" or not entry.schema.properties:
            continue
        changed = copy.deepcopy(entry)
        assert changed.schema.properties
        for each in changed.schema.properties.values():
            types = [each.type] if isinstance(each.type, str) else list(each.type or ())
            each.type = types if "null" in types or not types else [*types, "null"]
        changed.schema.required = None
        for column, schema in COLUMNS.items():
            changed.schema.properties[column] = Schema.from_dict(schema)
            changed.metadata["properties", column] = Metadata(Metadata.InclusionType.AVAILABLE, selected=True)
        made[name] = changed
    return made


@dataclass(eq=False)
class _Followed:
    """One stream.

    Attributes:
        after: its target has all transactions before this position; 0 if it is loaded in this run.
        records: makes its records.
    """

    singer: LogBasedStream
    log: LogStream
    after: int
    counter: Counter | None = None
    records: ChangeRecords | None = None


class LogRecords:
    """The LOG_BASED streams of one run that are sent as records."""

    def __init__(  # noqa: PLR0913 - each argument has a name
        self,
        run: LogRun,
        source: SourceConnector,
        streams: Sequence[LogBasedStream],
        *,
        failed: Callable[[str, Exception], None],
        has_failed: Callable[[str], bool],
        write_state: Callable[[], None],
        logger: logging.Logger,
    ) -> None:
        """Find out which streams must be read from their tables.

        Args:
            source: how to connect to the source's catalogs.
            failed: takes the streams that can't be followed.
            has_failed: tells whether a stream has failed.
            write_state: sends the state of all streams.
        """
        self._run, self._source, self._logger = run, source, logger
        self._failed, self._has_failed, self._write_state = failed, has_failed, write_state
        by_name = {stream.name: stream for stream in streams}
        positions = {
            name: lsn_of(position[1])
            for name, stream in by_name.items()
            if (position := stream.log_position) is not None and position[0] == run.slot
        }
        # by the oids of their tables
        self._followed: dict[int, _Followed] = {}
        for stream in run.found.streams:
            name = stream.plan.stream
            after = 0 if stream.is_loading else positions[name]
            if after and after < lsn_of(run.found.confirmed):
                failed(name, LogUnfitError(_behind(name, run.slot, run.found.confirmed, lsn_text(after))))
                continue
            if stream.doubt:
                logger.warning("Rows of %s may differ in its target: %s.", name, stream.doubt.why)
            self._followed[stream.columns.table_oid] = _Followed(by_name[name], stream, after)
        # what a run began with was stored once its target had written it
        self._stored = min(positions.values(), default=0)
        self._commit_lsn, self._in_transaction, self._at = 0, False, _EPOCH
        self._number, self._origin = 0, LogOrigin("", 0)
        self._progress = LogProgress(logger, arrived="sent")
        self._first_at: datetime | None = None
        self._tells = False
        self._stop_file = StopFile()

    def to_load(self, stream: str) -> StreamPlan | None:
        """Return how to read a stream from its table; None if it is only followed, or can't be."""
        plans = [each.log.plan for each in self._followed.values() if each.log.is_loading]
        return next((plan for plan in plans if plan.stream == stream), None)

    def follow(self, *, run_s: float, flush_s: float, stall_s: float) -> None:
        """Send the changes up to where the log is now, or for `run_s` seconds.

        Args:
            stall_s: how long the target may take no record.

        Raises:
            ReplicationError: the slot can't be streamed, or the target takes no record.
            SlotWalError: the source keeps too much WAL for the slot.
        """
        failure: Exception | None = None
        try:
            self._follow(run_s=run_s, flush_s=flush_s, stall_s=stall_s)
        except SingerPostgresError as error:
            failure = error
        failure = self._run.watch.at_end(failure)
        if failure is not None:
            raise failure

    def _follow(self, *, run_s: float, flush_s: float, stall_s: float) -> None:
        self._followed = {oid: each for oid, each in self._followed.items() if not self._has_failed(each.singer.name)}
        if not self._followed:
            return
        with closing(self._source.connect()) as connection:
            end = lsn_of(log_tables.flush_lsn(connection))
        self._tells = run_s > 0
        with ExitStack() as stack:
            replication = stack.enter_context(closing(self._run.connect()))
            self._origin = replication.identify()
            self._refuse_other_origins()
            replication.start(self._run.slot, self._run.publication, binary=False)
            replication.confirm(self._stored, ask=True)
            for each in self._followed.values():
                each.counter = stack.enter_context(each.singer.get_record_counter())
            kept = KeptSession(replication, self._run.slot, stall_s=stall_s)
            self._kept = stack.enter_context(closing(kept))
            self._read(replication, end, run_s=run_s, flush_s=flush_s)

    def _read(self, replication: Replication, end: int, *, run_s: float, flush_s: float) -> None:
        position = lsn_of(self._run.found.confirmed)
        began = stated_at = time.monotonic()
        number, is_hastened = self._number, False
        while True:
            with self._kept.lock:
                message = replication.read(_TICK_S)
            self._kept.progress_at = time.monotonic()
            if isinstance(message, bytes):
                position = max(position, self._take(message))
                if self._in_transaction or message[0] != pgoutput.COMMIT:
                    continue
            elif message is not None and not self._in_transaction:
                position = max(position, message)
            self._run.watch.now_and_then()
            if self._in_transaction:
                continue
            if position >= end and (self._kept.progress_at - began >= run_s or self._stop_file.is_there()):
                self._state(position)
                self._arrived(position, self._number - number, last=True)
                return
            if self._number - number >= _STATE_EVERY_RECORDS or self._kept.progress_at - stated_at >= max(flush_s, 1.0):
                # the first loads saw the table as it was before the end
                self._state(position, loading=position < end)
                self._arrived(position, self._number - number)
                number, stated_at = self._number, time.monotonic()
            elif message is None:
                if position < end and not is_hastened:
                    self._run.hasten()
                    is_hastened = True
                with self._kept.lock:
                    replication.confirm(0, ask=True)

    def _arrived(self, position: int, changes: int, *, last: bool = False) -> None:
        self._progress.on_their_way(position, changes, self._first_at or datetime.now(UTC))
        self._progress.acknowledged(position)
        if self._tells:
            self._progress.tell(last=last)
        self._first_at = None

    def _take(self, message: bytes) -> int:
        """Send a change; return the position that the log has reached, after a commit."""
        if self._run.ceiling is not None:
            self._run.ceiling.pause(len(message), is_over=self._stop_file.is_there)
        tag = message[0]
        if tag in _CHANGES:
            followed = self._followed.get(pgoutput.relation_id(message)[0])
            if followed is not None and self._commit_lsn >= followed.after:
                self._send(followed, message)
        elif tag == pgoutput.BEGIN:
            begin = pgoutput.parse_begin(message)
            self._commit_lsn, self._in_transaction = begin.commit_lsn, True
            self._at = _EPOCH + timedelta(microseconds=begin.committed_at)
        elif tag == pgoutput.COMMIT:
            self._in_transaction = False
            return pgoutput.parse_commit(message).end_lsn
        elif tag == pgoutput.RELATION:
            self._describe(pgoutput.parse_relation(message))
        elif tag == pgoutput.TRUNCATE:
            for followed in filter(None, map(self._followed.get, pgoutput.parse_truncate(message))):
                if self._commit_lsn >= followed.after:
                    self._logger.warning(
                        "%s was truncated, which records can't say: its target keeps the rows until they are deleted "
                        "there.",
                        followed.singer.name,
                    )
        return 0

    def _send(self, followed: _Followed, message: bytes) -> None:
        assert followed.records
        assert followed.counter
        try:
            for record in followed.records.of(message, self._commit_lsn, self._at.isoformat()):
                with self._kept.writing():
                    followed.singer.write_change(record, self._at)
                followed.counter.increment()
                self._number += 1
            self._first_at = self._first_at or self._at
        except SingerPostgresError as error:
            self._leave(followed, error)

    def _leave(self, followed: _Followed, error: Exception) -> None:
        self._followed = {oid: each for oid, each in self._followed.items() if each is not followed}
        self._failed(followed.singer.name, error)

    def _describe(self, relation: RelationMessage) -> None:
        """Take a table's description, before its first change and after it was altered."""
        followed = self._followed.get(relation.oid)
        if followed is None or followed.log.relation == relation:
            return
        stream = followed.log
        properties = followed.singer.schema["properties"]
        try:
            stream.table, stream.columns, _ = self._run.describe(stream, relation)
            with closing(self._source.connect()) as connection:
                types, cursor = record_values.base_types(connection, relation.columns)
                now = relations.find(connection, relation.schema, relation.name)
        except (SingerPostgresError, psycopg2.Error) as error:
            self._leave(followed, error)
            return
        stream.relation = relation
        # a column that was renamed since has another name in the log
        current = {column.attnum: column.name for column in now.columns} if now else {}
        names = {column.name: current.get(column.attnum, column.name) for column in stream.table.columns}
        masks = {name: mask for name, _, mask, _ in stream.columns.columns if mask}
        followed.records = ChangeRecords(
            relation,
            stream.table.key,
            {
                column.name: (name, record_values.reader(properties[name], type_oid, cursor))
                for column, type_oid in zip(relation.columns, types, strict=True)
                if (name := names.get(column.name)) in stream.plan.columns
            },
            masking.masked_by(relation.columns, masks, self._run.mask_secret),
        )

    def _state(self, position: int, *, loading: bool = False) -> None:
        """Send how far the streams are complete.

        Args:
            loading: those that were read from their tables in this run are not complete yet.
        """
        for each in self._followed.values():
            if each.records is not None and each.records.has_unchanged:
                each.records.has_unchanged = False
                self._logger.warning(
                    "Records of %s lack large values that did not change, because the log has none; some targets set "
                    "them to null. With REPLICA IDENTITY FULL the records have them.",
                    each.singer.name,
                )
            if loading and each.log.is_loading:
                continue
            each.singer.set_log_position(
                self._run.slot,
                lsn_text(max(position, each.after)),
                each.log.columns,
                each.log.storage,
                origin=self._origin,
            )
        with self._kept.writing():
            self._write_state()

    def _refuse_other_origins(self) -> None:
        """Refuse to go on from a position of another log.

        Raises:
            SlotAheadError: some streams have one.
        """
        for each in self._followed.values():
            name, before, position = each.singer.name, each.singer.log_origin, lsn_text(each.after)
            if not each.log.is_loading and before and not self._origin.goes_on_from(position, before):
                msg = (
                    f"{name} was followed up to {position} of the server {before.system}, timeline {before.timeline}, "
                    f"and this is {self._origin.system}, timeline {self._origin.timeline}, which does not go on from "
                    "there: a standby was promoted, or the source was restored. Read it again: clear its state."
                )
                raise SlotAheadError(msg)


def _behind(stream: str, slot: str, confirmed: str, position: str) -> str:
    return (
        f"The slot {slot} begins at {confirmed}, and the state has {stream} up to {position}: changes between them "
        "would be missed. Was the slot made again, or an older state restored? Read the stream again: clear its state."
    )
