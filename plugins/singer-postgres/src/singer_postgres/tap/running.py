"""Protocols for the parts of a running tap, so that no part imports the whole."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    import logging
    from contextlib import AbstractContextManager
    from datetime import datetime
    from pathlib import Path

    from singer_sdk.metrics import Counter

    from singer_postgres.core.log_origin import LogOrigin
    from singer_postgres.core.source.stream_query import ReadColumns
    from singer_postgres.tap.key_trail import KeyTrail
    from singer_postgres.tap.locks import Watch
    from singer_postgres.tap.read_ceiling import ReadCeiling
    from singer_postgres.tap.storage import Storage
    from singer_postgres.tap.stream_plan import StreamPlan
    from singer_postgres.tap.stream_planning import OpenStream


class ChunkedStream(Protocol):
    """A stream of the SDK that is read in chunks."""

    name: str
    replication_key: str | None
    schema: dict[str, Any]

    def get_context_state(self, context: None) -> dict[str, Any]:
        """Return the stream's state, which the caller may change."""

    def set_bookmark(self, value: str | None, columns: ReadColumns, trail: KeyTrail | None) -> None:
        """Store how far the stream is complete."""

    def forget_bookmark(self) -> bool:
        """Have the next incremental run read all rows; return whether the state changed."""

    def set_log_position(self, slot: str, position: str, columns: ReadColumns, storage: Storage | None) -> None:
        """Store how far a LOG_BASED stream is complete."""

    def get_record_counter(self, *, log_interval: float) -> Counter:
        """Return a counter of its records."""


class MessageWriter(Protocol):
    """Writes the messages of all streams."""

    def finish(self, stream: ChunkedStream, counter: Counter) -> None:
        """Write messages until the stream is complete."""


class RecordsOfLog(Protocol):
    """The LOG_BASED streams that are sent as records."""

    def to_load(self, stream: str) -> StreamPlan | None:
        """Return how to read a stream from its table; None if it is only followed, or can't be."""


class LogBasedStream(Protocol):
    """A stream of the SDK that can be LOG_BASED."""

    name: str

    @property
    def replication_method(self) -> str:
        """FULL_TABLE, INCREMENTAL or LOG_BASED."""

    @property
    def why_records(self) -> str | None:
        """Why the stream is sent as RECORD messages; None if it is sent in chunks."""

    @property
    def schema(self) -> dict[str, Any]:
        """The JSON schema of its table."""

    @property
    def plan(self) -> StreamPlan:
        """What to read of it."""

    @property
    def log_position(self) -> tuple[str, str, Storage | None] | None:
        """The slot that it follows, the position that it has reached, and its storage; None if not loaded."""

    @property
    def log_origin(self) -> LogOrigin | None:
        """The log of that position, if it is known."""

    def tell_of_other_slot(self) -> None:
        """Warn if its state is of another slot."""

    def set_log_position(
        self,
        slot: str,
        position: str,
        columns: ReadColumns,
        storage: Storage | None,
        *,
        origin: LogOrigin | None = None,
    ) -> None:
        """Store how far it is complete."""

    def write_change(self, record: dict[str, Any], at: datetime) -> None:
        """Send a record that comes from the log."""

    def get_record_counter(self) -> Counter:
        """Return the counter of its records."""


class RunningTap(Protocol):
    """The tap, as its streams use it."""

    logger: logging.Logger
    state: dict[str, Any]
    state_writer: Any

    @property
    def chunk_directory(self) -> Path:
        """The parent of the runs' chunk directories."""

    def start_reading(self) -> MessageWriter:
        """Return the writer of chunk messages. The first call starts to read all chunked streams."""

    @property
    def ceiling(self) -> ReadCeiling | None:
        """How fast all sessions together may read; None for no limit."""

    @property
    def lock_watch(self) -> Watch:
        """The watch that interrupts reading when another session waits for the table."""

    def open_stream(self, plan: StreamPlan) -> AbstractContextManager[OpenStream]:
        """Open a stream on a connection of its own, to read it as records."""

    @property
    def log_records(self) -> RecordsOfLog:
        """The LOG_BASED streams that are sent as records."""

    def stream_failed(self, stream: str, error: Exception) -> None:
        """Record that a stream can't be read.

        Raises:
            Exception: `error`, if the other streams must not continue.
        """
