"""The MeltanoLabs target, extended with streams that arrive as chunks of COPY data."""

from __future__ import annotations

import signal
import sys
import threading
import uuid
from functools import cached_property
from typing import IO, TYPE_CHECKING, Any

import psycopg
import sqlalchemy as sa
from singer_sdk.exceptions import InvalidRecord, MissingKeyPropertiesError
from target_postgres.target import TargetPostgres as MeltanoLabsTarget

from singer_postgres.core import driver_errors, shared_causes
from singer_postgres.core.driver_errors import log_fields
from singer_postgres.core.errors import (
    MessageInvalidError,
    NameTakenError,
    SingerPostgresError,
    one_line,
)
from singer_postgres.core.load_part import PART, LoadPart
from singer_postgres.core.warehouse.connections import WarehouseConnector
from singer_postgres.core.warehouse.run_lock import RunLock
from singer_postgres.core.wire import FORMAT, OF_LOG, Changes, Chunk, Cut, StreamEnd, Table, batch_from_json
from singer_postgres.singer import configuration, tunnels
from singer_postgres.singer.optional_password import settings_reported, without_password
from singer_postgres.target import files, unfit_settings
from singer_postgres.target.chunk_loaders import ChunkLoaders
from singer_postgres.target.connection_pool import ConnectionPool
from singer_postgres.target.counters import ChunkCounters
from singer_postgres.target.full_load import FullLoad
from singer_postgres.target.log_loader import LogJob, LogLoader
from singer_postgres.target.log_stream_load import LogStreamLoad
from singer_postgres.target.messages import MessageReader
from singer_postgres.target.part_load import PartLoad
from singer_postgres.target.settings import SETTINGS, WITHOUT_EFFECT
from singer_postgres.target.sinks import RecordSink
from singer_postgres.target.state_writer import StateWriter
from singer_postgres.target.stream_load import LoadRun, StreamLoad

if TYPE_CHECKING:
    from pathlib import Path
    from types import FrameType

    from singer_postgres.core.warehouse.row_counts import RowCounts
    from singer_postgres.core.warehouse.run_history import StreamRun
    from singer_postgres.core.wire import ReadBatch

# how streams of these methods are loaded, if not as INCREMENTAL ones
_LOADS: dict[str, type[StreamLoad]] = {"FULL_TABLE": FullLoad, "LOG_BASED": LogStreamLoad}


class TargetPostgres(configuration.CheckedSettings, MeltanoLabsTarget):
    """target-postgres with COPY."""

    package_name = "tidemark-singer-postgres"
    default_sink_class = RecordSink
    message_reader_class = MessageReader
    config_jsonschema = {  # noqa: RUF012 - the SDK's way to declare settings
        **MeltanoLabsTarget.config_jsonschema,
        "properties": {**without_password(MeltanoLabsTarget.config_jsonschema["properties"]), **SETTINGS["properties"]},
    }

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        """Initialize the target."""
        with settings_reported():
            super().__init__(*args, **kwargs)
        self._begin()
        self._opening = threading.Lock()
        if threading.current_thread() is threading.main_thread():
            # a failed worker wakes the main thread, which may wait for input that never comes
            signal.signal(signal.SIGUSR1, lambda *_: self._raise_error())

    def _begin(self) -> None:
        """Reset the target, which may listen several times. The last run has released its locks."""
        self._loads: dict[str, StreamLoad] = {}
        self._followed: dict[str, LogStreamLoad] = {}
        self._tables: dict[tuple[str, str], str] = {}
        self._failed: dict[str, Exception] = {}
        self._ended = False
        self._states = StateWriter()
        self._counters: dict[str, ChunkCounters] = {}
        # a new sink takes the lock of its table
        self._sinks_active.clear()
        self._sinks_to_clear.clear()
        self._latest_state = None
        self._reading: dict[str, LogStreamLoad] = {}
        for name in ("lock", "pool", "run_id", "_loading", "_log"):
            self.__dict__.pop(name, None)

    @property
    def target_connector(self) -> Any:
        """The MeltanoLabs connector. It opens the SSH tunnel, if one is configured."""
        with tunnels.explained(self.config):
            return super().target_connector

    @cached_property
    def warehouse(self) -> WarehouseConnector:
        """The warehouse's connection settings."""
        # the connector knows the TLS settings, and opens the SSH tunnel if there is one
        url = sa.make_url(self.target_connector.sqlalchemy_url)
        parameters = {**url.translate_connect_args(username="user", database="dbname"), **url.query}
        if not parameters.get("password"):
            # without this name, libpq looks for a password elsewhere; an empty one would count as given
            parameters.pop("password", None)
        return WarehouseConnector(
            parameters=lambda: parameters,
            schema=self.config.get("default_target_schema"),
            statement_timeout_s=self.config["statement_timeout"],
            lock_timeout_s=self.config["lock_timeout"],
        )

    @cached_property
    def lock(self) -> RunLock:
        """The locks that keep other runs out of this run's tables."""
        return RunLock(self.warehouse)

    @cached_property
    def run_id(self) -> str:
        """The id of this run in the history."""
        return str(self.config.get("run_id") or uuid.uuid4())

    @cached_property
    def _loading(self) -> ChunkLoaders:
        return ChunkLoaders(
            self.warehouse,
            self.lock,
            parallel=max(1, self.config["max_parallel"]),
            committed=self._chunk_committed,
            failed=self._chunk_failed,
        )

    @cached_property
    def _log(self) -> LogLoader:
        return LogLoader(
            self.warehouse,
            done=self.batch_committed,
            counted=self._counted,
            failed=self._left_the_cut,
            has_failed=self.has_failed,
        )

    def _left_the_cut(self, load: LogStreamLoad, error: Exception) -> bool:
        # a number of its own: the cut, whose number later states wait for, goes on without the stream
        return self.stream_failed(self.batch_began(), load.stream, load.history, error, retries=load.effort.retries)

    def _raise_error(self) -> None:
        for name in ("_loading", "_log"):
            if name in vars(self):
                vars(self)[name].raise_error()

    def _counted(self, load: LogStreamLoad, written: RowCounts, *, last: bool) -> None:
        self._counters[load.stream].count(written, last=last)

    @cached_property
    def pool(self) -> ConnectionPool:
        """The connections that streams of records share."""
        return ConnectionPool(self.warehouse)

    def claim(self, stream: str, schema: str, table: str) -> None:
        """Note which stream a table belongs to.

        Raises:
            SingerPostgresError: the table belongs to another stream.
        """
        other = self._tables.setdefault((schema, table), stream)
        if other != stream:
            msg = (
                f"{stream} and {other} would go into the same table, {schema}.{table}. Unset the target's "
                "default_target_schema to keep the source's schemas apart, or deselect one."
            )
            raise NameTakenError(msg)

    # messages

    def _process_schema_message(self, message_dict: dict[str, Any]) -> None:
        described = message_dict.get(FORMAT)
        if described is None:
            self._loads.pop(message_dict.get("stream", ""), None)
            self._process_schema_of_records(message_dict)
            return
        stream = message_dict["stream"]
        unfit_settings.refuse_maps(self.config, stream)
        run = LoadRun(
            self.warehouse,
            self.lock,
            self.run_id,
            self.initialized_at,
            bool(self.config.get("hard_delete")),
            self.config["history_days"],
            self.config["change_history_days"],
            self.config["raw_partitions"],
            self._opening,
        )
        table = Table.from_json(described)
        load: StreamLoad
        if described.get(PART):
            load = PartLoad(run, stream, table, LoadPart.from_json(described[PART]))
        else:
            load = _LOADS.get(table.method, StreamLoad)(run, stream, table)
        unfit_settings.refuse_to_replace(self.config, stream, table)
        if stream in self._loads and load.table.method != "LOG_BASED":
            msg = f"{stream} was described twice in one run; the tap may send each stream once."
            raise MessageInvalidError(msg)
        self.claim(stream, load.schema, load.table.name)
        if described.get(OF_LOG):
            assert isinstance(load, LogStreamLoad)
            self._followed[stream] = load
        else:
            self._loads[stream] = load
        self._counters[stream] = ChunkCounters(stream)

    def _process_schema_of_records(self, message_dict: dict[str, Any]) -> None:
        stream = message_dict.get("stream", "")
        if self.has_failed(stream):
            return
        number = self.batch_began()
        try:
            super()._process_schema_message(message_dict)
        except (psycopg.Error, SingerPostgresError) as error:
            if not driver_errors.ends_one_stream(error, writing=True) or not self.stream_failed(
                number, stream, None, error
            ):
                raise
            return
        self.batch_committed(number)
        # load the records of the old schema first: full batches of the new one would not wait for them
        for replaced in self._sinks_to_clear:
            self.drain_one(replaced)

    def _process_activate_version_message(self, message_dict: dict[str, Any]) -> None:
        stream = message_dict.get("stream", "")
        if self.has_failed(stream):
            return
        number = self.batch_began()
        try:
            super()._process_activate_version_message(message_dict)
        except (psycopg.Error, SingerPostgresError) as error:
            if not driver_errors.ends_one_stream(error, writing=True) or not self.stream_failed(
                number, stream, None, error
            ):
                raise
        else:
            self.batch_committed(number)

    def _process_batch_message(self, message_dict: dict[str, Any]) -> None:
        known = {*self._loads, *self._followed}
        if self.has_failed(message_dict["stream"]) and message_dict["stream"] not in known:
            return
        encoding = message_dict["encoding"]
        if encoding.get("format") != FORMAT:
            super()._process_batch_message(message_dict)
            return
        stream = message_dict["stream"]
        if stream not in known:
            msg = (
                f"{stream} arrived as chunks without a description of its table: something between tap and target (a "
                "mapper?) changed its SCHEMA message but not its chunks. Set use_copy of the tap to false."
            )
            raise MessageInvalidError(msg)
        batch = batch_from_json(encoding)
        paths = [files.path_of(uri) for uri in message_dict["manifest"]]
        named = 1 if isinstance(batch, Chunk | Changes) else 0
        if len(paths) != named:
            kind = type(batch).__name__
            msg = f"A BATCH of {stream} names {len(paths)} files; a {kind} of format {FORMAT} names {named}."
            raise MessageInvalidError(msg)
        number = self._states.submit()
        path = paths[0] if paths else None
        if isinstance(batch, Changes | Cut):
            self._submit_of_log(number, self._followed[stream], batch, path)
            return
        load = self._loads[stream]
        if isinstance(load, LogStreamLoad):
            self._log.wait_until_begun()
            self._reading[stream] = load
        self._loading.submit(number, load, batch, path)

    def _submit_of_log(self, number: int, load: LogStreamLoad, batch: Changes | Cut, path: Path | None) -> None:
        of_cut: dict[str, dict[str, LogStreamLoad]] = {}
        if isinstance(batch, Cut):
            of_cut = {"described": dict(self._followed), "reading": dict(self._reading)}
        self._log.submit(LogJob(number, load, batch, path, **of_cut))

    # records

    def _process_record_message(self, message_dict: dict[str, Any]) -> None:
        stream = message_dict.get("stream", "")
        if self._failed and self.has_failed(stream):
            return
        try:
            super()._process_record_message(message_dict)
        except (InvalidRecord, MissingKeyPropertiesError) as error:
            sink = self.get_sink(stream)
            if not isinstance(sink, RecordSink):
                raise
            if not sink.reject(message_dict["record"], error) and not self.stream_failed(
                self.batch_began(), sink.stream_name, sink.history, error, retries=sink.retries
            ):
                raise

    # state

    def _process_state_message(self, message_dict: dict[str, Any]) -> None:
        super()._process_state_message(message_dict)
        self._states.came(message_dict["value"])

    def _write_state_message(self, state: dict[str, Any]) -> None:
        """Do nothing: chunks may be uncommitted. `StateWriter` writes each state once all before it is committed."""

    def batch_began(self) -> int:
        """Return a number for a batch of records. Later states wait for it."""
        return self._states.submit()

    def batch_committed(self, number: int) -> None:
        """Note that a batch is committed."""
        self._states.commit(number)

    def _chunk_committed(self, number: int, load: StreamLoad, batch: ReadBatch, written: RowCounts) -> None:
        last = isinstance(batch, StreamEnd) and load.table.method != "LOG_BASED"
        self._counters[load.stream].count(written, last=last)
        self._states.commit(number)

    def _chunk_failed(self, number: int, load: StreamLoad, error: Exception | None) -> bool:
        return self.stream_failed(number, load.stream, load.history, error, retries=load.effort.retries)

    def stream_failed(
        self, number: int, stream: str, history: StreamRun | None, error: Exception | None, *, retries: int = 0
    ) -> bool:
        """Note that a chunk or batch of a failed stream is skipped, and return whether other streams continue.

        Args:
            history: the stream's row in the history, if the stream has begun.
            error: the reason, for the stream's first failure only.
            retries: how often a part of the stream was loaded again before.
        """
        goes_on = bool(self.config["on_stream_error"] == "continue")
        if error is not None:
            self._failed[stream] = error
            if history is not None:
                history.fail(self.warehouse, error, retries=retries)
            if goes_on:
                what = one_line(error)
                self.logger.warning(
                    "Loading %s failed; the run continues: %s",
                    stream,
                    what,
                    extra=log_fields(error, side="warehouse", stream=stream),
                )
        if goes_on:
            self._states.fail(number, stream)
        return goes_on

    def has_failed(self, stream: str) -> bool:
        """Return whether a stream has failed. Its further rows are skipped."""
        return stream in self._failed

    # the end

    def listen(self, file_input: IO[str] | None = None) -> None:
        """Process all messages as one run, and close all connections at the end."""
        self._begin()
        if self._mapper is not None:
            # an old mapper would skip a schema that it knows, and create no sink for it
            self.setup_mapper()
        configuration.check(self.config, self.config_jsonschema["properties"], WITHOUT_EFFECT)
        try:
            super().listen(file_input)
        except Exception as error:
            loads = [*self._loads.values(), *self._followed.values()]
            begun = [(load.history, load.effort.retries) for load in loads if load.opened.is_set()]
            begun += [
                (sink.history, sink.retries) for sink in self._sinks_active.values() if isinstance(sink, RecordSink)
            ]
            for history, retries in begun:
                # at the end of the input, the streams that did not fail are complete
                if not self._ended and not self.has_failed(history.stream):
                    history.fail(self.warehouse, error, retries=retries)
            raise
        finally:
            if "pool" in vars(self):
                self.pool.close()
            if "lock" in vars(self):
                self.lock.close()

    def process_endofpipe(self) -> None:
        """Wait for the chunks, then let the SDK drain its records.

        Raises:
            SingerPostgresError, psycopg.Error, SyncError: a stream could not be loaded. The others were loaded.
        """
        if "_loading" in vars(self):
            self._loading.wait()
        if "_log" in vars(self):
            self._log.wait()
        super().process_endofpipe()
        self._ended = True
        names = [*{**self._loads, **self._followed}, *(sink.stream_name for sink in self._sinks_active.values())]
        shared_causes.raise_failed(self._failed, of=names, could_not="be loaded", side="warehouse")

    def _handle_termination(self, signum: int, frame: FrameType | None) -> None:  # noqa: ARG002
        """Exit at once. Open transactions roll back, and the next run loads their rows again."""
        sys.stdout.flush()
        sys.exit(128 + signum)
