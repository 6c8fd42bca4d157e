"""The LOG_BASED streams of one run: which slot they follow, and what is to be known before it begins."""

from __future__ import annotations

import copy
import os
from contextlib import closing
from typing import TYPE_CHECKING, Any

from singer_postgres.core import session
from singer_postgres.core.source import log_tables
from singer_postgres.core.source.slot_wal import SlotBudget
from singer_postgres.tap.log import following
from singer_postgres.tap.log.log_reader import LogReader, LogSettings
from singer_postgres.tap.log.replication import Replication
from singer_postgres.tap.log.slot_watch import SlotWatch

if TYPE_CHECKING:
    import logging
    import queue
    from collections.abc import Callable, Mapping, Sequence

    from singer_postgres.core.source.pgoutput import RelationMessage
    from singer_postgres.core.source.stream_query import ReadColumns
    from singer_postgres.core.wire import Table
    from singer_postgres.tap.chunk_files import ChunkFiles
    from singer_postgres.tap.connections import SourceConnector
    from singer_postgres.tap.events import Event
    from singer_postgres.tap.log.log_stream import LogStream
    from singer_postgres.tap.stream_plan import StreamPlan
    from singer_postgres.tap.streams import CopyStream

# Meltano's variable for the plugin's name
_NAME = "MELTANO_EXTRACTOR_NAME"


class LogRun:
    """The LOG_BASED streams of one run."""

    def __init__(
        self,
        config: Mapping[str, Any],
        source: SourceConnector,
        streams: Sequence[CopyStream],
        *,
        failed: Callable[[str, Exception], None],
        logger: logging.Logger,
    ) -> None:
        """Check what the log needs, and describe the streams.

        Args:
            source: how to connect to the source's catalogs.
            failed: takes the streams that can't be followed.

        Raises:
            SlotMissingError: the slot can't be used.
        """
        self._config, self._source = config, source
        self._slot = str(config.get("slot_name") or log_tables.name_of(os.environ.get(_NAME, "tap-postgres")))
        self._publication = str(config.get("publication_name") or self._slot)
        self._watch = SlotWatch(SlotBudget.of(config), self._slot, source.connect_once, logger)
        with closing(source.connect()) as connection:
            self._watch.look(connection)
            self._found = following.prepare(
                connection,
                # a stream's state changes while it is read
                [(copy.deepcopy(stream.plan), stream.log_position) for stream in streams],
                slot=self._slot,
                publication=self._publication,
                failed=failed,
                logger=logger,
            )

    @property
    def loads(self) -> list[StreamPlan]:
        """The plans of the streams that are to be read from their tables first."""
        return [stream.plan for stream in self._found.streams if stream.is_loading]

    def reader(self, files: ChunkFiles, events: queue.Queue[Event]) -> LogReader | None:
        """Return the reader of the log; None if no stream can be followed."""
        if not self._found.streams:
            return None
        config = self._config
        return LogReader(
            self._connect,
            slot=self._slot,
            publication=self._publication,
            binary=self._found.binary,
            streams=self._found.streams,
            confirmed=self._found.confirmed,
            end=self._found.end,
            describe=self._describe,
            mask_secret=config.get("mask_secret"),
            files=files,
            settings=LogSettings(
                flush_s=float(config["flush_seconds"]),
                run_s=float(config["replication_max_run_seconds"]),
                stall_s=float(config["stall_seconds"]),
            ),
            events=events,
            slot_watch=self._watch,
        )

    def _connect(self) -> Replication:
        replication = Replication(self._source.dsn())
        replication.set(session.SETTINGS)
        return replication

    def _describe(self, stream: LogStream, message: RelationMessage) -> tuple[Table, ReadColumns, bool]:
        with closing(self._source.connect()) as connection:
            return following.describe(connection, stream, message)
