"""How late changes come while tap and target follow, and what was going on when they came latest."""

from __future__ import annotations

import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from bench.cdc.ours import SLOT
from bench.cdc.servers import FILL, SIDES
from bench.cdc.usage import Usage

if TYPE_CHECKING:
    from bench.cdc.ours import Ours
    from bench.cdc.servers import Servers

_PROBE_S = 0.5
_SAMPLE_S = 0.25
# what runs in a server: queries, autovacuum, and a checkpoint unless the checkpointer waits for the next one
_DOING = """
    select case backend_type when 'client backend' then 'a query' when 'walsender' then 'decoding'
        when 'checkpointer' then 'a checkpoint' else 'autovacuum' end,
        coalesce(wait_event, 'the CPU')
    from pg_stat_activity
    where pid <> pg_backend_pid() and (
        state = 'active' and backend_type in ('client backend', 'walsender')
        or backend_type = 'autovacuum worker'
        or backend_type = 'checkpointer' and wait_event is distinct from 'CheckpointerMain'
    )
"""
_RETAINED = """
    select pg_wal_lsn_diff(pg_current_wal_lsn(), restart_lsn)::bigint from pg_replication_slots where slot_name = %s
"""


@dataclass(frozen=True)
class _Delay:
    """One row's way: when it was committed in the source, and how long it took until the warehouse had it."""

    began: float
    seconds: float


@dataclass
class _Seen:
    """Samples, each with its moment: what each server did, and the bytes of log that the slot held."""

    doing: list[tuple[float, str]] = field(default_factory=list)
    retained: list[tuple[float, int]] = field(default_factory=list)

    def during(self, delay: _Delay) -> str:
        """Say what most of the samples of a delay show."""
        counts = Counter(what for moment, what in self.doing if 0 <= moment - delay.began <= delay.seconds)
        total = max(1, len({moment for moment, _ in self.doing if 0 <= moment - delay.began <= delay.seconds}))
        often = [f"{what} ({count * 100 // total} %)" for what, count in counts.most_common(4) if count * 5 >= total]
        return ", ".join(often) or "nothing in particular"


def measure(servers: Servers, ours: Ours, seconds: float, rate: int) -> dict[str, Any]:
    """Follow writers, and look each moment how old the newest row is that the warehouse has."""
    ours.pipe.tap["replication_max_run_seconds"] = seconds
    ended = threading.Event()
    delays: list[_Delay] = []
    seen = _Seen()
    threads = [
        threading.Thread(target=servers.write_until, args=(ended, rate)),
        threading.Thread(target=_probe, args=(servers, ended, delays)),
        threading.Thread(target=_sample, args=(servers, ended, seen)),
    ]
    usage = Usage(servers)
    processes = ours.start()
    usage.watch([process.pid for process in processes])
    # the first cut takes what came while tap and target were starting
    time.sleep(min(5.0, seconds / 4))
    began = time.monotonic()
    for thread in threads:
        thread.start()
    try:
        for process in processes:
            process.wait()
    finally:
        ended.set()
        for thread in threads:
            thread.join()
    used = usage.stop()
    ours.finish(processes)
    return {
        **_delayed(delays, seen, began),
        "on": f"{datetime.now(UTC):%Y-%m-%d}",
        "rate": rate,
        "seconds": used.seconds,
        "cpu_s": used.cpu_s,
        "servers_cpu_s": used.servers_cpu_s,
        "memory_mb": _tenths(usage.memory_mb),
        "retained_mb": _tenths([size / 2**20 for _, size in seen.retained]),
    }


def _delayed(delays: list[_Delay], seen: _Seen, began: float) -> dict[str, Any]:
    ordered = sorted(delays, key=lambda delay: delay.seconds)
    if not ordered:
        raise RuntimeError("no row came while tap and target followed; follow longer (SECONDS)")
    worst = [
        {"at_s": each.began - began, "seconds": each.seconds, "meanwhile": seen.during(each)}
        for each in reversed(ordered[-3:])
    ]
    usual = ordered[len(ordered) // 2]
    return {
        "p50": usual.seconds,
        "p95": ordered[int(len(ordered) * 0.95)].seconds,
        "usually": seen.during(usual),
        "worst": worst,
    }


def _tenths(values: list[float]) -> list[float]:
    """Return the peaks of ten parts of the time, one after the other."""
    size = max(1, -(-len(values) // 10))
    return [max(values[i : i + size]) for i in range(0, len(values), size)]


def _probe(servers: Servers, ended: threading.Event, delays: list[_Delay]) -> None:
    """Write a row now and then, and note how long it takes until the warehouse has it."""
    with servers.source() as source, servers.warehouse() as warehouse:
        number = 0
        while not ended.wait(_PROBE_S):
            number -= 1
            source.execute(FILL, [number, number])
            began = time.monotonic()
            while warehouse.execute("select from raw.items where id = %s", [number]).fetchone() is None:
                if ended.wait(0.02):
                    return
            delays.append(_Delay(began, time.monotonic() - began))


def _sample(servers: Servers, ended: threading.Event, seen: _Seen) -> None:
    with servers.source() as source, servers.warehouse() as warehouse:
        while not ended.wait(_SAMPLE_S):
            now = time.monotonic()
            for side, connection in zip(SIDES, (source, warehouse), strict=True):
                found = {f"{what} of the {side}: {waits}" for what, waits in connection.execute(_DOING)}
                seen.doing += [(now, what) for what in found]
            if row := source.execute(_RETAINED, [SLOT]).fetchone():
                seen.retained.append((now, row[0] or 0))
