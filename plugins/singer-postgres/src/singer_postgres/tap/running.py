"""Protocols for the parts of a running tap, so that no part imports the whole."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    import logging
    from contextlib import AbstractContextManager
    from pathlib import Path

    from singer_sdk.metrics import Counter

    from singer_postgres.core.source.stream_query import ReadColumns
    from singer_postgres.tap.key_trail import KeyTrail
    from singer_postgres.tap.locks import Watch
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


class MessageWriter(Protocol):
    """Writes the messages of all streams."""

    def finish(self, stream: ChunkedStream, counter: Counter) -> None:
        """Write messages until the stream is complete."""


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
    def lock_watch(self) -> Watch:
        """The watch that interrupts reading when another session waits for the table."""

    def open_stream(self, plan: StreamPlan) -> AbstractContextManager[OpenStream]:
        """Open a stream on a connection of its own, to read it as records."""

    def stream_failed(self, stream: str, error: Exception) -> None:
        """Record that a stream can't be read.

        Raises:
            Exception: `error`, if the other streams must not continue.
        """
