"""What the parts of a running tap need of each other, so that none of them imports the whole."""

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
    from singer_postgres.tap.stream_plan import StreamPlan
    from singer_postgres.tap.stream_planning import OpenStream


class ChunkedStream(Protocol):
    """A stream of the SDK that is read in chunks."""

    name: str
    replication_key: str | None
    schema: dict[str, Any]

    def get_context_state(self, context: None) -> dict[str, Any]:
        """Return the stream's state, to be changed in place."""

    def set_bookmark(self, value: str | None, shape: ReadColumns, trail: KeyTrail | None) -> None:
        """Note how far the stream is complete."""


class MessageWriter(Protocol):
    """Writes the messages of all streams."""

    def finish(self, stream: ChunkedStream, counter: Counter) -> None:
        """Write messages until all of a stream is out."""


class RunningTap(Protocol):
    """The tap of a run, as its streams see it."""

    logger: logging.Logger
    state: dict[str, Any]
    state_writer: Any

    @property
    def chunk_directory(self) -> Path:
        """The directory below which the chunk files are."""

    def start_reading(self) -> MessageWriter:
        """Start to read all streams that are read in chunks, at the first call; return what writes their messages."""

    @property
    def lock_watch(self) -> Watch:
        """What gives a table's lock up when somebody waits for it."""

    def open_stream(self, plan: StreamPlan) -> AbstractContextManager[OpenStream]:
        """Open a stream that is read as records, on a connection of its own."""

    def stream_failed(self, stream: str, error: Exception) -> None:
        """Note that a stream can't be read.

        Raises:
            Exception: `error`, where the other streams are not to go on.
        """
