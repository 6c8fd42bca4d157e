"""The tap: the MeltanoLabs tap with its data path replaced.

The MeltanoLabs tap provides connection settings, SSH tunnels and stream maps. This package provides discovery, and
reads all streams.
"""

from __future__ import annotations

import copy
import os
import tempfile
import time
from contextlib import closing, contextmanager
from dataclasses import replace
from datetime import timedelta
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from psycopg2.extensions import make_dsn, parse_dsn
from tap_postgres.tap import TapPostgres as MeltanoLabsTap

from singer_postgres.core import driver_errors, shared_causes
from singer_postgres.core.driver_errors import log_fields
from singer_postgres.core.errors import SlotAheadError, SlotMissingError, StateInvalidError, one_line
from singer_postgres.core.notices import Notices
from singer_postgres.core.source import masks, relations, selected_streams, start_date
from singer_postgres.core.source.replication_key import Lookback
from singer_postgres.core.source.stream_query import mask_key_statement
from singer_postgres.singer import configuration, tunnels
from singer_postgres.singer.optional_password import settings_reported, without_password
from singer_postgres.tap import earlier_state, run_checks
from singer_postgres.tap.batch_writer import BatchWriter, watch_reader
from singer_postgres.tap.chunk_files import ChunkFiles
from singer_postgres.tap.chunk_readers import ChunkReaders
from singer_postgres.tap.connections import SourceConnector
from singer_postgres.tap.discovery import catalog
from singer_postgres.tap.locks import LockedError, Pause, Watch
from singer_postgres.tap.log import log_records
from singer_postgres.tap.log.log_run import LogRun, refuse_without_log
from singer_postgres.tap.read_ceiling import ReadCeiling
from singer_postgres.tap.settings import OF_ANOTHER_SLOT, SETTINGS, WITHOUT_EFFECT
from singer_postgres.tap.source_queries import ReadSettings
from singer_postgres.tap.stream_planning import OpenStream, open_stream
from singer_postgres.tap.streams import CopyStream

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from types import FrameType

    from singer_sdk import Stream
    from singer_sdk.singerlib import Catalog

    from singer_postgres.tap.stream_plan import StreamPlan


# Meltano's variable for the plugin's name
_NAME = "MELTANO_EXTRACTOR_NAME"


class TapPostgres(configuration.CheckedSettings, MeltanoLabsTap):
    """tap-postgres, with COPY."""

    package_name = "tidemark-singer-postgres"
    config_jsonschema = {  # noqa: RUF012 - the SDK's way to declare settings
        **MeltanoLabsTap.config_jsonschema,
        "properties": {
            **{
                name: value
                for name, value in without_password(MeltanoLabsTap.config_jsonschema["properties"]).items()
                if (name, None) not in OF_ANOTHER_SLOT
            },
            **SETTINGS["properties"],
        },
    }

    _catalog_dict: dict[str, Any] | None
    _files: ChunkFiles | None = None
    _batch_writer: BatchWriter | None = None

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        """Initialize the tap."""
        self._failed: dict[str, Exception] = {}
        # the SDK treats any empty value as no state
        if (state := kwargs.get("state")) is not None and not isinstance(state, dict):
            msg = f"The state is {earlier_state.shown(state)}, not an object; correct or clear it."
            raise StateInvalidError(msg)
        with settings_reported():
            super().__init__(*args, **kwargs)
            _ = self.config.get("sqlalchemy_url") or self.config["database"]
        # the SDK compares it with bookmarks unchecked
        start_date.parsed(self.config.get("start_date"))

    def load_state(self, state: dict[str, Any]) -> None:
        """Load the state of earlier runs.

        Raises:
            SingerPostgresError: the state is not valid, or has a form that this release does not write.
        """
        earlier_state.refuse(state)
        super().load_state(state)

    # the source

    @cached_property
    def source(self) -> SourceConnector:
        """How to connect to the source."""
        found = self.config.get("masks") or {}
        secret = self.config.get("mask_secret")
        hashed = any("sha256" in stream.values() for stream in found.values())
        return replace(self._catalogs, mask_key=mask_key_statement(secret) if hashed and secret else None)

    @cached_property
    def _catalogs(self) -> SourceConnector:
        """How to connect for queries that read no rows."""
        return SourceConnector(
            dsn=self._dsn,
            statement_timeout_s=self.config["statement_timeout"],
            lock_timeout_s=self.config["lock_timeout"],
        )

    def _dsn(self) -> str:
        # the connector opens the SSH tunnel, if there is one, and then knows its address
        _ = self.connector
        parameters = parse_dsn(self.connection_parameters.render_as_psycopg2_dsn())
        if not parameters["password"]:
            # without this parameter, libpq looks elsewhere for a password; with an empty one, it doesn't
            del parameters["password"]
        return make_dsn(**parameters)

    @cached_property
    def connector(self) -> Any:
        """The MeltanoLabs connector, which opens the SSH tunnel, if there is one."""
        with tunnels.explained(self.config):
            return super().connector

    # the streams

    @property
    def catalog_dict(self) -> dict[str, Any]:
        """The given catalog, or else the source's."""
        if self.input_catalog:
            return self.input_catalog.to_dict()
        if self._catalog_dict is None:
            with closing(self._catalogs.connect()) as connection:
                schemas = self.config.get("filter_schemas") or ()
                found, left_out = relations.in_schemas(connection, schemas, wanted=selected_streams.selected_by_run())
            for relation in left_out:
                self.logger.warning("%s", relation)
            self._catalog_dict = catalog(found, self.config)
        return self._catalog_dict

    def discover_streams(self) -> Sequence[Stream]:
        """Return the streams of the catalog; if it was given, only the selected ones."""
        return [
            CopyStream(self, entry, connector=self.connector)
            for entry in self.catalog_dict["streams"]
            # each costs a millisecond and two lines in the log, and a database may have thousands
            if not self.input_catalog or _is_selected(entry)
        ]

    @property
    def catalog(self) -> Catalog:
        """The catalog, with LOG_BASED streams as their records are."""
        return log_records.described(super(MeltanoLabsTap, self).catalog)

    @cached_property
    def log_records(self) -> log_records.LogRecords:
        """The LOG_BASED streams that are sent as records."""
        streams = [
            stream
            for stream in self.streams.values()
            if isinstance(stream, CopyStream) and stream.selected and stream.replication_method == "LOG_BASED"
        ]
        return log_records.LogRecords(
            self._new_log_run(streams, is_comparable=False),
            self._catalogs,
            streams,
            failed=self.stream_failed,
            has_failed=self._failed.__contains__,
            write_state=lambda: self.state_writer.write_state(self.state),
            logger=self.logger,
        )

    @cached_property
    def _notices(self) -> Notices:
        return Notices(self.logger)

    @property
    def _lookback(self) -> Lookback:
        return Lookback(
            # a number with an exponent comes as a Decimal
            usual=timedelta(seconds=float(self.config["lookback_seconds"])),
            longest=timedelta(seconds=float(self.config["longest_transaction_seconds"])),
            zone=self.config.get("timestamp_timezone"),
        )

    @contextmanager
    def open_stream(self, plan: StreamPlan) -> Iterator[OpenStream]:
        """Open a stream to read it as records; wait if its table is locked."""
        limit_s = self.source.lock_timeout_s
        with closing(self.source.connect()) as connection:
            pause = Pause()
            while True:
                try:
                    with self.lock_watch.over(connection):
                        opened = open_stream(
                            connection,
                            plan,
                            lookback=self._lookback,
                            notices=self._notices,
                            lock_timeout_s=limit_s,
                            chunks=False,
                        )
                    break
                except LockedError as error:
                    with connection.cursor() as cursor:
                        cursor.execute("ROLLBACK")
                    pause.locked(plan.stream, str(error), limit_s=limit_s)
                time.sleep(pause.left_s)
            yield opened

    @cached_property
    def lock_watch(self) -> Watch:
        """The watch for sessions that wait for tables which are read as records."""
        return Watch(self.source)

    @cached_property
    def ceiling(self) -> ReadCeiling | None:
        """How fast all sessions together may read; None for no limit."""
        mb_per_s = float(self.config["max_source_mb_per_s"])
        return ReadCeiling(mb_per_s) if mb_per_s else None

    @property
    def chunk_directory(self) -> Path:
        """The parent of the runs' chunk directories."""
        base = self.config.get("chunk_dir") or Path(tempfile.gettempdir()) / f"tidemark-chunks-{os.getuid()}"
        return Path(base).absolute()

    def start_reading(self) -> BatchWriter:
        """Return the writer of chunk messages.

        The first call creates the run's chunk directory and starts the threads that read all chunked streams.
        """
        if self._batch_writer is None:
            streams = [
                stream
                for stream in self.streams.values()
                if isinstance(stream, CopyStream) and stream.selected and stream.why_records is None
            ]
            # as many can be loaded as are read
            limit = self.config.get("chunks_outstanding") or 2 * self.config["max_parallel"]
            self._files = ChunkFiles(self.chunk_directory, limit=limit)
            watch_reader(self._files)
            chunk_bytes = max(1, round(self.config["chunk_size_mb"] * 2**20))
            settings = ReadSettings(
                chunk_bytes=min(chunk_bytes, self.ceiling.range_bytes) if self.ceiling else chunk_bytes,
                parallel=self.config["max_parallel"],
                snapshot_s=float(self.config["snapshot_seconds"]),
                lookback=self._lookback,
                ceiling=self.ceiling,
            )
            # all plans come first, because a stream's state changes while it is read
            plans = [copy.deepcopy(stream.plan) for stream in streams if stream.replication_method != "LOG_BASED"]
            followed = [stream for stream in streams if stream.replication_method == "LOG_BASED"]
            log_run = self._log_run(followed, are_all=not plans) if followed else None
            plans += log_run.loads if log_run else []
            readers = ChunkReaders(self.source, plans, self._files, settings, self._notices)
            log = log_run.reader(self._files, readers.events) if log_run else None
            self._batch_writer = BatchWriter(self, streams, self._files, readers, log=log, failed=self._failed)
            if log is not None:
                # its first cut comes before all rows
                log.start()
            readers.start()
        return self._batch_writer

    def _new_log_run(self, streams: Sequence[CopyStream], *, is_comparable: bool) -> LogRun:
        return LogRun(
            self.config,
            self._catalogs,
            streams,
            failed=self.stream_failed,
            logger=self.logger,
            is_comparable=is_comparable,
            ceiling=self.ceiling,
        )

    def _log_run(self, streams: Sequence[CopyStream], *, are_all: bool) -> LogRun | None:
        """Return the run of LOG_BASED streams; None if their slot can't be used, and others are read.

        Raises:
            SlotMissingError, SlotAheadError: it can't, and no other stream is read.
        """
        try:
            return self._new_log_run(streams, is_comparable=True)
        except (SlotMissingError, SlotAheadError) as error:
            if are_all or self.config["on_stream_error"] != "continue":
                raise
            for stream in streams:
                self._note_failed(stream.name, error)
            return None

    def sync_all(self) -> None:
        """Read all streams.

        Raises:
            SingerPostgresError, psycopg2.Error: some streams could not be read; the others were.
        """
        configuration.check(self.config, self.config_jsonschema["properties"], WITHOUT_EFFECT)
        variable = f"{os.environ.get(_NAME, 'tap-postgres').upper().replace('-', '_')}_MASK_SECRET"
        masks.refuse(self.config.get("masks") or {}, self.config.get("mask_secret"), variable=variable)
        run_checks.refuse_misspelt(self.config, self.catalog_dict, self._catalogs, self.logger)
        selected = [stream for stream in self.streams.values() if stream.selected]
        run_checks.refuse_parts(self.config, selected, probe=self.open_stream)
        if self.input_catalog is not None:
            for name, error in run_checks.missing(self.catalog_dict, self.state, self._catalogs, self.logger):
                self.stream_failed(name, error)
        if not (selected or self._failed):
            selected_streams.refuse_none()
        refuse_without_log(self.config, [stream for stream in selected if isinstance(stream, CopyStream)])
        super().sync_all()
        if "log_records" in self.__dict__:
            self.log_records.follow(
                run_s=float(self.config["replication_max_run_seconds"]),
                flush_s=float(self.config["flush_seconds"]),
                stall_s=float(self.config["stall_seconds"]),
            )
        names = [stream.name for stream in selected]
        shared_causes.raise_failed(self._failed, of=names, could_not="be read", side="source")

    def stream_failed(self, stream: str, error: Exception) -> None:
        """Record that a stream failed, and continue without it.

        Raises:
            Exception: `error`, if it ends the run or `on_stream_error` is `stop`.
        """
        if self.config["on_stream_error"] != "continue" or not driver_errors.ends_one_stream(error):
            raise error
        # streams that are read as records come with the driver's error
        role = self.config.get("user")
        error = driver_errors.wrap_driver_error(error, f"Reading {stream}", side="source", of_stream=True, role=role)
        self._note_failed(stream, error)

    def _note_failed(self, stream: str, error: Exception) -> None:
        self._failed[stream] = error
        what = one_line(error)
        self.logger.warning(
            "Reading %s failed; the run continues: %s",
            stream,
            what,
            extra=log_fields(error, side="source", stream=stream),
        )

    def _handle_termination(self, signum: int, frame: FrameType | None) -> None:  # noqa: ARG002
        """End at once with a failure: the SDK's handler exits with status 0, as if everything had been read."""
        if self._files is not None:
            self._files.abort(128 + signum)
        os._exit(128 + signum)


def _is_selected(entry: dict[str, Any]) -> bool:
    """Return whether a catalog entry may be selected; the SDK decides."""
    if entry.get("selected"):
        return True
    own = [each["metadata"] for each in entry.get("metadata", ()) if not each["breadcrumb"]]
    return any(
        each.get("selected") is not False for each in own if each.get("selected", each.get("selected-by-default"))
    )
