"""The LOG_BASED streams of one run: which slot they follow, and what is to be known before it begins."""

from __future__ import annotations

import copy
import os
from contextlib import closing, suppress
from typing import TYPE_CHECKING, Any

from psycopg2 import Error

from singer_postgres.core import session
from singer_postgres.core.errors import SettingInvalidError, SingerPostgresError
from singer_postgres.core.source import log_tables
from singer_postgres.core.source.slot_wal import SlotBudget
from singer_postgres.tap.log import following
from singer_postgres.tap.log.log_reader import LogReader, LogSettings
from singer_postgres.tap.log.replication import Replication
from singer_postgres.tap.log.slot_watch import SlotWatch

if TYPE_CHECKING:
    import logging
    import queue
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from singer_postgres.core.source.pgoutput import RelationMessage
    from singer_postgres.core.source.stream_query import ReadColumns
    from singer_postgres.core.wire import Table
    from singer_postgres.tap.chunk_files import ChunkFiles
    from singer_postgres.tap.connections import SourceConnector
    from singer_postgres.tap.events import Event
    from singer_postgres.tap.log.log_stream import LogStream
    from singer_postgres.tap.read_ceiling import ReadCeiling
    from singer_postgres.tap.running import LogBasedStream
    from singer_postgres.tap.stream_plan import StreamPlan

# Meltano's variable for the plugin's name
_NAME = "MELTANO_EXTRACTOR_NAME"


def refuse_without_log(config: Mapping[str, Any], streams: Iterable[LogBasedStream]) -> None:
    """Refuse what is asked for streams that are not followed by this project's target.

    Raises:
        SettingInvalidError: a setting would have no effect.
    """
    for setting in ("commit_columns", "change_history"):
        for stream in streams:
            if stream.name in config[setting] and (stream.replication_method != "LOG_BASED" or stream.why_records):
                why = stream.why_records if stream.replication_method == "LOG_BASED" else "it is not LOG_BASED"
                msg = f"{setting} names {stream.name}, and would have no effect: {why}. Change that, or take it out."
                raise SettingInvalidError(msg)


class LogRun:
    """The LOG_BASED streams of one run.

    Attributes:
        found: the streams that can be followed, and where the slot is.
    """

    def __init__(  # noqa: PLR0913 - each argument has a name
        self,
        config: Mapping[str, Any],
        source: SourceConnector,
        streams: Sequence[LogBasedStream],
        *,
        failed: Callable[[str, Exception], None],
        logger: logging.Logger,
        is_comparable: bool,
        ceiling: ReadCeiling | None = None,
    ) -> None:
        """Check what the log needs, and describe the streams.

        Args:
            source: how to connect to the source's catalogs.
            failed: takes the streams that can't be followed.
            is_comparable: `tidemark slots repair` can compare the target's rows with the source.
            ceiling: how fast to read the log.

        Raises:
            SlotMissingError: the slot can't be used.
        """
        self._config, self._source, self.ceiling = config, source, ceiling
        self.slot = str(config.get("slot_name") or log_tables.name_of(os.environ.get(_NAME, "tap-postgres")))
        self.publication = str(config.get("publication_name") or self.slot)
        self.watch = SlotWatch(SlotBudget.of(config), self.slot, source.connect_once, logger)
        for stream in streams:
            stream.tell_of_other_slot()
        with closing(source.connect()) as connection:
            self.watch.look(connection)
            self.found = following.prepare(
                connection,
                # a stream's state changes while it is read
                [(copy.deepcopy(stream.plan), stream.log_position) for stream in streams],
                slot=self.slot,
                publication=self.publication,
                failed=failed,
                logger=logger,
                is_comparable=is_comparable,
            )

    @property
    def loads(self) -> list[StreamPlan]:
        """The plans of the streams that are to be read from their tables first."""
        return [stream.plan for stream in self.found.streams if stream.is_loading]

    def reader(self, files: ChunkFiles, events: queue.Queue[Event]) -> LogReader | None:
        """Return the reader of the log; None if no stream can be followed."""
        if not self.found.streams:
            return None
        config = self._config
        return LogReader(
            self.connect,
            slot=self.slot,
            publication=self.publication,
            binary=self.found.binary,
            streams=self.found.streams,
            confirmed=self.found.confirmed,
            end=self.found.end,
            describe=self.describe,
            mask_secret=self.mask_secret,
            files=files,
            ceiling=self.ceiling,
            settings=LogSettings(
                flush_s=float(config["flush_seconds"]),
                run_s=float(config["replication_max_run_seconds"]),
                stall_s=float(config["stall_seconds"]),
            ),
            events=events,
            slot_watch=self.watch,
            hasten=self.hasten,
        )

    def hasten(self) -> None:
        """Have the source write its log to its disk: nothing else may do that soon in a quiet database."""
        # without it, what is awaited comes with the next commit
        with suppress(Error, SingerPostgresError), closing(self._source.connect()) as connection:
            log_tables.hasten_flush(connection)
            connection.commit()

    @property
    def mask_secret(self) -> str | None:
        """The key of sha256 masks."""
        return self._config.get("mask_secret")

    def connect(self) -> Replication:
        """Return a session that can stream the slot."""
        replication = Replication(self._source.dsn())
        replication.set(session.SETTINGS)
        return replication

    def describe(self, stream: LogStream, message: RelationMessage) -> tuple[Table, ReadColumns, bool]:
        """Describe a stream's table as a message of the log has it."""
        with closing(self._source.connect()) as connection:
            return following.describe(connection, stream, message)
