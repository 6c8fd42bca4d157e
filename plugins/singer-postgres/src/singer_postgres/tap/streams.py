"""A stream of this tap: COPY chunks if the target takes them, otherwise records. Both have the same bookmark."""

from __future__ import annotations

import os
import stat
import sys
from functools import cached_property
from typing import TYPE_CHECKING, Any

import psycopg2
from singer_sdk.helpers._batch import BaseBatchFileEncoding, BatchConfig, StorageTarget
from tap_postgres.client import PostgresStream

from singer_postgres.core.errors import SettingInvalidError, SingerPostgresError
from singer_postgres.core.load_part import LoadPart
from singer_postgres.core.log_origin import LogOrigin
from singer_postgres.core.lsn import lsn_of
from singer_postgres.core.source import start_date
from singer_postgres.core.source.backfill import Backfill
from singer_postgres.core.source.stream_query import ReadColumns
from singer_postgres.core.wire import FIRST_LOAD, FORMAT, KEY_TRAIL, LOG, SHAPE
from singer_postgres.tap import records
from singer_postgres.tap.key_trail import KeyTrail
from singer_postgres.tap.log import change_records, log_records
from singer_postgres.tap.stream_plan import StreamPlan

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from datetime import datetime

    from singer_sdk.helpers.types import Context
    from singer_sdk.singerlib import RecordMessage, SelectionMask

    from singer_postgres.core.wire import BlockRange, Method
    from singer_postgres.tap.running import RunningTap
    from singer_postgres.tap.storage import Storage

# the methods whose first load can be resumed
_METHODS: dict[str, Method] = {"INCREMENTAL": "INCREMENTAL", "LOG_BASED": "LOG_BASED"}
# the Singer SDK's name for it in a stream's state
_BOOKMARK = "replication_key_value"


class CopyStream(PostgresStream):
    """A table, or another relation that rows can be selected from."""

    _tap: RunningTap
    _extracted_at: datetime | None = None

    def get_replication_key_signpost(self, context: Context | None = None) -> None:  # noqa: ARG002
        """Return None: the bookmark comes from the source's clock, never from this machine's."""
        return

    def sync(self, context: Context | None = None) -> None:
        """Read the stream. If that fails, the other streams continue, unless `on_stream_error` is `stop`."""
        began = {"stream": self.name, "incremental": self.replication_method in _METHODS}
        self.logger.info("Reading %s", self.name, extra={"stream_began": began})
        try:
            super().sync(context)
        except (SingerPostgresError, psycopg2.Error) as error:
            self._tap.stream_failed(self.name, error)

    # how it is read

    @cached_property
    def why_records(self) -> str | None:
        """Why the stream is sent as RECORD messages; None if it is sent in chunks."""
        reasons = {
            "use_copy is off": not self.config.get("use_copy"),
            "flattening is on": self.config.get("flattening_enabled"),
            "stream_maps are set": self.config.get("stream_maps"),
            "max_record_count is set": self.config.get("max_record_count"),
            "--test needs only a few records": self.ABORT_AT_RECORD_COUNT is not None,
            "standard output is not a pipe, so no target would remove the chunks": not _read_by_a_program(),
        }
        return next((reason for reason, holds in reasons.items() if holds), None)

    def get_batch_config(self, config: Mapping[str, Any]) -> BatchConfig | None:  # noqa: ARG002
        """Return the format and directory of the chunks if the stream is read in chunks, else None."""
        if self.why_records is None:
            storage = StorageTarget(root=self._tap.chunk_directory.as_uri())
            return BatchConfig(encoding=BaseBatchFileEncoding(format=FORMAT), storage=storage)
        if self.config.get("use_copy"):
            self.logger.info("Sending RECORD messages: stream=%s, reason=%s", self.name, self.why_records)
        return None

    def _write_schema_message(self) -> None:
        if self.why_records is None:
            # sent with the description of the table, once the stream is open
            return
        super()._write_schema_message()

    def _write_state_message(self) -> None:
        if self.why_records is None:
            # sent with the chunks
            return
        super()._write_state_message()

    def _sync_batches(self, batch_config: object, context: Context | None = None) -> None:  # noqa: ARG002
        with self.get_record_counter(log_interval=5) as counter:
            self._tap.start_reading().finish(self, counter)

    @property
    def emit_activate_version_messages(self) -> bool:
        """Whether to announce the start of a FULL_TABLE stream. With chunks, its end counts instead."""
        return self.why_records is not None and super().emit_activate_version_messages

    # what is read

    @property
    def plan(self) -> StreamPlan:
        """What to read of this stream."""
        entry = self._singer_catalog_entry
        options = (self.config.get("stream_options") or {}).get(self.name) or {}
        own = (self.config.get("where") or {}).get(self.name)
        asked = (self.config.get("backfill") or {}).get(self.name)
        return StreamPlan(
            stream=self.name,
            schema=str(entry.metadata.root.schema_name),
            name=str(entry.table),
            method=_METHODS.get(str(self.replication_method), "FULL_TABLE"),
            columns=tuple(self.get_selected_schema()["properties"]),
            key=tuple(self.primary_keys),
            replication_key=self._moved_from if self.replication_method == "LOG_BASED" else self.replication_key,
            bookmark=self._start if asked is None else None,
            first_load=self._first_load if asked is None else None,
            compared_at=self._compared_at if asked is None else None,
            columns_before=self._columns_before if asked is None else None,
            trail=self._trail if asked is None else None,
            masks=(self.config.get("masks") or {}).get(self.name) or {},
            where=(*options.get("custom_where_clauses", ()), *([own] if own else ())),
            start_date=start_date.parsed(self.config.get("start_date")),
            allow_duplicates=self.name in (self.config.get("allow_duplicates") or ()),
            backfill=None if asked is None else Backfill.of(asked),
            part=self._part,
            commits=self.name in self.config["commit_columns"],
            history=self.name in self.config["change_history"],
        )

    @property
    def _start(self) -> str | None:
        """The bookmark; None if it belongs to another column, or if a first load is unfinished."""
        state = self.get_context_state(None)
        value = state.get(_BOOKMARK)
        if self._moved_from:
            return str(value)
        if self.replication_method != "INCREMENTAL" or self._first_load or self._part:
            return None
        if value is not None and state.get("replication_key") != self.replication_key:
            self.logger.warning(
                "Reading from the beginning, because the replication key changed: stream=%s, was=%s, is=%s",
                self.name,
                state.get("replication_key"),
                self.replication_key,
            )
            return None
        return None if value is None else str(value)

    @property
    def _moved_from(self) -> str | None:
        """The replication key with which a LOG_BASED stream was loaded before; None if it was not, or was read since.

        Only the rows after its bookmark are read then, before the log is followed.
        """
        state = self.get_context_state(None)
        is_loaded = self.replication_method == "LOG_BASED" and not (state.get(LOG) or state.get(FIRST_LOAD))
        return state.get("replication_key") if is_loaded and state.get(_BOOKMARK) is not None else None

    @property
    def _part(self) -> LoadPart | None:
        named = (self.config.get("first_load_part") or {}).get(self.name)
        try:
            return LoadPart.from_json(named) if named is not None else None
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            msg = f"`first_load_part` of {self.name} is {named!r}, and only `tidemark run --shard` sets it; unset it."
            raise SettingInvalidError(msg) from error

    @property
    def _columns_before(self) -> ReadColumns | None:
        columns = self._part.columns if self._part else self.get_context_state(None).get(SHAPE)
        return ReadColumns.from_json(columns) if columns else None

    @property
    def _trail(self) -> KeyTrail | None:
        state = self.get_context_state(None)
        trail = state.get(KEY_TRAIL) if state.get("replication_key") == self.replication_key else None
        return KeyTrail.from_json(trail) if trail else None

    @property
    def _first_load(self) -> tuple[str | None, tuple[BlockRange, ...]] | None:
        if self._part:
            return (self._part.watermark, ()) if self._part.columns else None
        begun = self.get_context_state(None).get(FIRST_LOAD)
        if not begun or self.replication_method not in _METHODS:
            return None
        return first_load(begun)

    @property
    def _compared_at(self) -> str | None:
        """The position at which a comparison took the place of the first load; None if none did."""
        begun: list[Any] = self.get_context_state(None).get(FIRST_LOAD) or []
        return next(iter(begun[2:]), None) if self.replication_method == "LOG_BASED" else None

    # records

    @property
    def mask(self) -> SelectionMask:
        """Which columns are sent."""
        mask = super().mask
        if self.replication_method == "LOG_BASED":
            mask.update({("properties", column): True for column in log_records.COLUMNS})
        return mask

    @property
    def effective_schema(self) -> dict[str, Any]:
        """The schema of records."""
        schema: dict[str, Any] = super().effective_schema
        if self.replication_method != "LOG_BASED":
            return schema
        return {**schema, "properties": {**schema["properties"], **log_records.COLUMNS}}

    def get_records(self, context: Context | None) -> Iterable[dict[str, Any]]:  # noqa: ARG002
        """Yield the rows as records; set the bookmark when all are read. Changes of the log come later."""
        plan, is_of_log = self.plan, self.replication_method == "LOG_BASED"
        if is_of_log:
            to_load = self._tap.log_records.to_load(self.name)
            if to_load is None:
                return
            plan = to_load
            self.forget_bookmark()
        # a part of the rows would be followed as if it were all
        limits = [None if is_of_log else self.max_record_count()]
        if self.ABORT_AT_RECORD_COUNT is not None:
            limits.append(self.ABORT_AT_RECORD_COUNT + 1)
        limit = min((limit for limit in limits if limit), default=None)
        reading = records.Records(
            self._tap.open_stream,
            self._tap.lock_watch,
            plan,
            properties=self.schema["properties"],
            keyed=all(map_.transformed_key_properties for map_ in self.stream_maps),
            limit=limit,
            lock_timeout_s=self.config["lock_timeout"],
            ceiling=self._tap.ceiling,
        )
        for row in reading:
            self._extracted_at = reading.extracted_at
            yield {**row, **dict.fromkeys(log_records.COLUMNS)} if is_of_log else row
        if is_of_log:
            return
        if self.replication_method == "INCREMENTAL":
            # rows come in the order of the replication key, so at the limit the last row has the bookmark
            last, first = reading.last, reading.first
            value = last.get(self.replication_key) if last and reading.count == limit else first.origin.end
            self.set_bookmark(None if value is None else str(value), first.selection.read_columns(), first.plan.trail)
        else:
            self.forget_bookmark()

    def _generate_record_messages(self, record: dict[str, Any]) -> Iterator[RecordMessage]:
        for message in super()._generate_record_messages(record):
            # as for chunks: the instant of the snapshot, by the source's clock
            message.time_extracted = self._extracted_at
            yield message

    def write_change(self, record: dict[str, Any], at: datetime) -> None:
        """Send a record that comes from the log, committed at an instant."""
        self._extracted_at = at
        self._write_record_message(record)

    def set_bookmark(self, value: str | None, columns: ReadColumns, trail: KeyTrail | None) -> None:
        """Store how far the stream is complete. The value may lie before the last bookmark, or be None."""
        state = self.get_context_state(None)
        state[SHAPE] = columns.to_json()
        if trail is not None or KEY_TRAIL in state:
            state[KEY_TRAIL] = trail.to_json() if trail is not None else []
        if value is not None or _BOOKMARK in state:
            state["replication_key"] = self.replication_key
            state[_BOOKMARK] = value
        state.update({key: [] for key in (FIRST_LOAD, LOG) if key in state})
        self.state_manager.is_flushed = False

    @property
    def log_position(self) -> tuple[str, str, Storage | None] | None:
        """The slot that the stream follows, the position that it has reached, and its storage; None if not loaded."""
        found = self.get_context_state(None).get(LOG)
        return log_state(found)[:3] if found else None

    def tell_of_other_slot(self) -> None:
        """Warn if the state is of the MeltanoLabs tap's own LOG_BASED streams."""
        state = self.get_context_state(None)
        if state.get("replication_key") == change_records.LSN and not state.get(LOG):
            self.logger.warning(
                "The state of %s has a position of the MeltanoLabs tap's slot, which is another one, so the stream is "
                "read from its beginning. Then drop that slot, or the source keeps all its WAL: select "
                "pg_drop_replication_slot(slot_name) from pg_replication_slots where plugin = 'wal2json'",
                self.name,
            )

    @property
    def log_origin(self) -> LogOrigin | None:
        """The log of that position, if it is known. A warehouse of ours has it in its own table."""
        found = self.get_context_state(None).get(LOG)
        return log_state(found)[3] if found else None

    def set_log_position(
        self,
        slot: str,
        position: str,
        columns: ReadColumns,
        storage: Storage | None,
        *,
        origin: LogOrigin | None = None,
    ) -> None:
        """Store how far the stream is complete."""
        state = self.get_context_state(None)
        state[LOG] = [slot, position, storage, *([origin.to_json()] if origin else [])]
        state[SHAPE] = columns.to_json()
        if _BOOKMARK in state:
            # it is not kept up to date: a stream that moves back is read whole
            state[_BOOKMARK] = None
        if FIRST_LOAD in state:
            state[FIRST_LOAD] = []
        self.state_manager.is_flushed = False

    def forget_bookmark(self) -> bool:
        """Have the next incremental run read all rows, as after a whole read; return whether the state changed."""
        state = self.get_context_state(None)
        unread: dict[str, Any] = {_BOOKMARK: None, FIRST_LOAD: [], LOG: []}
        forgotten = {key: unread[key] for key in unread if state.get(key)}
        # not removed: Meltano merges some states into the one before
        state.update(forgotten)
        return bool(forgotten)

    def _increment_stream_state(self, latest_record: dict[str, Any], *, context: Context | None = None) -> None:
        """Leave the bookmark alone: it is set when the stream is read to its end."""


def first_load(value: Any) -> tuple[str | None, tuple[BlockRange, ...]]:
    """Parse the state of an unfinished first load: its watermark, and the ranges already loaded."""
    watermark, blocks, *compared_at = value
    for position in compared_at:
        lsn_of(position)
    return watermark, tuple((node, first, after) for node, first, after in blocks)


def log_state(value: Any) -> tuple[str, str, Storage | None, LogOrigin | None]:
    """Parse the state of a stream that follows a slot: the slot, the position, the storage, and the log's origin.

    Raises:
        ValueError, TypeError: it is not such a state.
    """
    slot, position, *more = value
    lsn_of(position)
    storage = more[0] if more else None
    if storage is not None:
        storage = [[int(oid), int(node)] for oid, node in storage]
    return str(slot), position, storage, LogOrigin.from_json(more[1]) if len(more) > 1 else None


def _read_by_a_program() -> bool:
    """Return whether standard output is a pipe or a socket."""
    try:
        mode = os.fstat(sys.stdout.fileno()).st_mode
    except (OSError, ValueError):
        return False
    return stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode)
