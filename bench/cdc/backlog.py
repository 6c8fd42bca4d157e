"""How fast tap and target load a backlog, alone or while writers write."""

from __future__ import annotations

import threading
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from bench.cdc.usage import Usage

if TYPE_CHECKING:
    from bench.cdc.ours import Ours
    from bench.cdc.servers import Servers


def measure(servers: Servers, ours: Ours, *, writing: bool) -> dict[str, Any]:
    """Load what is in the log, from the start of tap and target to their end."""
    ended = threading.Event()
    writer = threading.Thread(target=servers.write_until, args=(ended,))
    if writing:
        writer.start()
    try:
        before = _totals(ours)
        usage = Usage(servers)
        processes = ours.start()
        usage.watch([process.pid for process in processes])
        ours.finish(processes)
        used = usage.stop()
    finally:
        ended.set()
        if writing:
            writer.join()
    changes, copying, merging = (after - at_start for after, at_start in zip(_totals(ours), before, strict=True))
    return {**asdict(used), "changes": changes, "staging_s": copying, "merging_s": merging}


def _totals(ours: Ours) -> tuple[float, float, float]:
    """Return the rows that all runs have read, and the seconds for which they staged and merged them."""
    with ours.pipe.warehouse() as connection:
        row = connection.execute(
            "select coalesce(sum(rows_read), 0)::bigint, coalesce(sum(seconds_copying), 0)::float, "
            "coalesce(sum(seconds_merging), 0)::float from raw._tidemark_runs"
        ).fetchone()
    assert row
    rows_read, copying, merging = row
    return rows_read, copying, merging
