"""`python -m bench.cdc`: the variables ROWS, CHANGES, SECONDS, RATE, ROUNDS and PEERS are its options.

ROWS (of the table), CHANGES (of the backlog), SECONDS (to follow) and RATE (changes a second meanwhile) are for this
project alone. The tools of PEERS share a table of a tenth of ROWS, and load a fifth of CHANGES in each of ROUNDS.
With SECONDS=0, or with no PEERS, the earlier figures of that part stay.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import signal
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from tests.conftest import REPOSITORY
from tests.servers import INSTALLATIONS

from bench.cdc import backlog, decoded, followed, race
from bench.cdc.ours import Ours
from bench.cdc.peers.dlt_source import Dlt
from bench.cdc.peers.pgcopydb import Pgcopydb
from bench.cdc.peers.stock import Stock
from bench.cdc.peers.subscription import Subscription
from bench.cdc.peers.tidemark import Tidemark
from bench.cdc.report import Race, Results
from bench.cdc.servers import DATABASE, servers

if TYPE_CHECKING:
    from bench.cdc.peers.base import Peer

_PEERS: dict[str, type[Peer]] = {
    "tidemark": Tidemark,
    "subscription": Subscription,
    "pgcopydb": Pgcopydb,
    "dlt": Dlt,
    "stock": Stock,
}
_CONSOLE = Console()


def main() -> None:
    """Measure, and write the results after each part."""
    rows = int(os.environ.get("ROWS") or 10_000_000)
    changes = int(os.environ.get("CHANGES") or 1_000_000)
    seconds, rate = float(os.environ.get("SECONDS", "600")), int(os.environ.get("RATE") or 2000)
    rounds = int(os.environ.get("ROUNDS") or 3)
    names = [name for name in os.environ.get("PEERS", ",".join(_PEERS)).split(",") if name]
    if unknown := set(names) - _PEERS.keys():
        sys.exit(f"error: PEERS names {', '.join(unknown)}; the known peers are {', '.join(_PEERS)}.")
    work = REPOSITORY / ".tidemark" / "bench"
    work.mkdir(parents=True, exist_ok=True)
    # two sessions would distort each other's figures
    lock = (work / "lock").open("w")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        sys.exit("error: another session of the benchmark is running here; wait until it ends.")
    with lock:
        results = _ours(work, rows, changes, seconds, rate)
        if names:
            _others(work, results, [_PEERS[name] for name in names], changes // 5, rounds)


def _ours(work: Path, rows: int, changes: int, seconds: float, rate: int) -> Results:
    with servers("embedded", work, rows) as both, tempfile.TemporaryDirectory(dir=work) as directory:
        results = Results(rows, both.about())
        ours = Ours(both, Path(directory), DATABASE)
        with _CONSOLE.status(f"Making a table of {rows:,} rows, and loading it"):
            both.fill()
            both.settle()
            ours.begin()
        with _CONSOLE.status("Decoding and loading backlogs"):
            both.write(changes)
            results.decoded = decoded.measure(ours.pipe)
            results.backlog = backlog.measure(both, ours, writing=False)
            results.save()
            both.write(changes)
            results.while_writing = backlog.measure(both, ours, writing=True)
            results.save()
        if seconds:
            with _CONSOLE.status(f"Following for {seconds:.0f} s"):
                results.followed = followed.measure(both, ours, seconds, rate)
                results.save()
    for what in ("decoded", "backlog", "while_writing"):
        part = getattr(results, what)
        _CONSOLE.print(f"{what}: {part['changes'] / part['seconds']:,.0f} changes/s")
    if found := results.followed:
        _CONSOLE.print(f"followed: p50 {found['p50']:.1f} s, p95 {found['p95']:.1f} s, {found['worst'][0]}")
    return results


def _others(work: Path, results: Results, kinds: list[type[Peer]], changes: int, rounds: int) -> None:
    """Measure the tools on the system's PostgreSQL if there is one, because Debian has wal2json only for that."""
    installation = "system" if "system" in INSTALLATIONS else "embedded"
    directories = [work / kind.database for kind in kinds]
    for directory in directories:
        # of a session that was killed
        shutil.rmtree(directory, ignore_errors=True)
    rows = results.rows // 10
    try:
        with servers(installation, work, rows) as both:
            found = results.race = Race(rows, both.about())
            ready = race.prepare(kinds, both, work, found, _CONSOLE)
            results.save()
            for _ in race.run(ready, changes, rounds, found, _CONSOLE):
                results.save()
    finally:
        for directory in directories:
            shutil.rmtree(directory, ignore_errors=True)


if __name__ == "__main__":
    # so that SIGTERM stops the servers too
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(130)
