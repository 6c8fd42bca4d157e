"""What the tap tells the target of how it read a stream, for the history. The end of a stream carries it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class ReadReport:
    """How the tap read a stream, and what that cost the source. An older tap leaves out what it does not know.

    Attributes:
        retries: how often a part of the stream was read again after an error.
        seconds: how long parallel workers read, added up.
        held_by: what held the bookmark back: see `OpenTransactions.held_back`; None if nothing did.
        held_seconds: for how long it had done so.
        source_bytes: the rows, as the source sent them; what was read again counts again.
        source_buffers_hit: pages that our sessions found in the source's memory; None if that is not known.
        source_buffers_read: pages that the source fetched for them from its system, in the same way.
        source_wal_bytes: the WAL that reading wrote in the source, in the same way.
        snapshot_seconds: the longest time for which a snapshot of the source was held.
        seconds_paused: how long workers paused to stay below `max_source_mb_per_s`, added up.
    """

    retries: int = 0
    seconds: float | None = None
    held_by: str | None = None
    held_seconds: float | None = None
    source_bytes: int | None = None
    source_buffers_hit: int | None = None
    source_buffers_read: int | None = None
    source_wal_bytes: int | None = None
    snapshot_seconds: float | None = None
    seconds_paused: float | None = None
