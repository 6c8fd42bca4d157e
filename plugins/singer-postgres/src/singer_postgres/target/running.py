"""The part of the target that a stream of records needs, as a protocol: the sinks need not import the target."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping

    from singer_postgres.core.warehouse.run_history import StreamRun
    from singer_postgres.core.warehouse.run_lock import RunLock
    from singer_postgres.target.connection_pool import ConnectionPool


class RunningTarget(Protocol):
    """The running target, as its sinks see it."""

    config: Mapping[str, Any]

    @property
    def run_id(self) -> str:
        """The id of this run."""

    @property
    def pool(self) -> ConnectionPool:
        """The connections that streams of records share."""

    @property
    def lock(self) -> RunLock:
        """The locks of this run's tables."""

    def claim(self, stream: str, schema: str, table: str) -> None:
        """Refuse a table that another stream of this run writes to."""

    def batch_began(self) -> int:
        """Return a number for a batch. Later states are not written before it is committed."""

    def batch_committed(self, number: int) -> None:
        """Note that a batch is committed."""

    def has_failed(self, stream: str) -> bool:
        """Return whether a stream has failed. Its further rows are skipped."""

    def stream_failed(
        self, number: int, stream: str, history: StreamRun | None, error: Exception | None, *, retries: int = 0
    ) -> bool:
        """Note that a stream failed, and return whether the other streams continue."""

    def drain_one(self, sink: Any) -> None:
        """Load the records that a sink holds."""
