"""`python -m bench`. The variables SCALE, TPCH, ROUNDS, PEERS, ONCE and ALSO are its options.

`make help` shows them.
"""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

import psycopg
from rich.console import Console
from tests.conftest import REPOSITORY
from tests.integration.stages import make_checkout

from bench import data, plot, report
from bench.measure import CommandFailedError, Measured
from bench.peers.base import Peer, Setting
from bench.peers.others import Dlt, DltConnectorx, Pgcopydb, Sling
from bench.peers.raw import Raw
from bench.peers.stock import Stock
from bench.peers.tidemark import Tidemark

if TYPE_CHECKING:
    from collections.abc import Collection

_PEERS: dict[str, type[Peer]] = {
    "raw": Raw,
    "tidemark": Tidemark,
    "pgcopydb": Pgcopydb,
    "sling": Sling,
    "dlt": Dlt,
    "dlt-connectorx": DltConnectorx,
    "stock": Stock,
}
_ALSO = {"reconcile", "marts"}
# tidemark reads the last minute before a bookmark again: a load begins later than that after a change for another peer
_LOOKBACK_S = 65.0
_changed_at: list[float] = []
_CONSOLE = Console()


def main() -> None:
    """Run the benchmark and write the results after each round."""
    scale, rounds = float(os.environ.get("SCALE") or 1), int(os.environ.get("ROUNDS") or 5)
    tpch = float(os.environ["TPCH"]) if os.environ.get("TPCH") else None
    names = (os.environ.get("PEERS") or ",".join(_PEERS)).split(",")
    if unknown := set(names) - _PEERS.keys():
        sys.exit(f"error: PEERS names {', '.join(unknown)}; the known peers are {', '.join(_PEERS)}.")
    also = [kind for kind in (os.environ.get("ALSO") or "").split(",") if kind]
    if unknown := set(also) - _ALSO:
        sys.exit(f"error: ALSO names {', '.join(unknown)}; it can name {', '.join(sorted(_ALSO))}.")
    work = REPOSITORY / ".tidemark" / "bench"
    work.mkdir(parents=True, exist_ok=True)
    # two sessions would share the peers' projects and distort each other's figures
    lock = (work / "lock").open("w")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        sys.exit("error: another session of the benchmark is running here; wait until it ends.")
    with lock, contextmanager(make_checkout)("embedded", parent=work) as checkout:
        checkout.tidemark("up")
        with _CONSOLE.status("Making the data"):
            dataset = data.prepare(checkout, scale=scale, tpch=tpch, work=work)
        _CONSOLE.print(f"{dataset.title}: {dataset.rows:,} rows of {len(dataset.keys)} tables")
        setting = Setting(checkout, dataset, work, work / "log")
        section = report.Section.begin(setting)
        once = (os.environ.get("ONCE") or "").split(",")
        peers = [peer for name in names if (peer := _prepared(_PEERS[name](setting), section, once=name in once))]
        section.save()
        if not peers:
            sys.exit("error: no peer is left to measure.")
        for turn in range(rounds):
            # each round starts with another peer, so that a drift over time affects all
            order = peers[turn % len(peers) :] + peers[: turn % len(peers)]
            for peer in order:
                _CONSOLE.print(f"round {turn + 1} of {rounds}: {peer.name}")
                _round(peer, setting, section, turn, also=also if turn == 0 else ())
                section.save()
    try:
        plot.draw(work)
    except subprocess.CalledProcessError as error:
        _CONSOLE.print(f"results.svg was not redrawn: {str(error.stderr or error).strip()}", style="yellow")


def _prepared(peer: Peer, section: report.Section, *, once: bool) -> Peer | None:
    peer.once |= once
    try:
        with _CONSOLE.status(f"Installing {peer.name}"):
            peer.prepare()
    except (OSError, subprocess.CalledProcessError) as error:
        said = str(getattr(error, "stderr", None) or error)
        section.leave_out(peer, " ".join(said.split())[-200:])
        _CONSOLE.print(f"{peer.name} is left out: {said}", style="yellow")
        return None
    section.add(peer)
    return peer


def _round(peer: Peer, setting: Setting, section: report.Section, turn: int, *, also: Collection[str]) -> None:
    """Time a first load, an idle run and the run after a change.

    Args:
        also: what else to time: `reconcile`, `marts`.
    """
    again = peer.once and turn > 0
    try:
        if not again:
            _drop(peer, setting)
        with setting.checkout.connect("warehouse") as connection:
            connection.execute("checkpoint")
        if again:
            # not timed: loads what changed for the other peers since its last turn
            peer.load()
        else:
            peer.forget()
            for changed_at in _changed_at:
                time.sleep(max(0.0, changed_at + _LOOKBACK_S - time.monotonic()))
            _timed(peer, setting, section, "first load")
        if peer.incremental:
            _timed(peer, setting, section, "idle")
            for kind in also:
                _also(peer, section, kind, setting.dataset.rows)
            with setting.checkout.connect("source") as connection:
                changed = data.change(connection, setting.dataset, turn)
            _changed_at[:] = [time.monotonic()]
        else:
            changed = setting.dataset.rows // 100
        _timed(peer, setting, section, "1 % changed", changed, turn=turn)
        if "marts" in also:
            _also(peer, section, "marts, 1 % changed", changed)
        if not peer.once:
            # so that the disk need not hold what all peers have loaded
            _drop(peer, setting)
    except (CommandFailedError, OSError, subprocess.SubprocessError, psycopg.Error) as error:
        section.leave_out(peer, f"failed: {' '.join(str(error).split())[-300:]}")
        _CONSOLE.print(f"{peer.name} failed: {error}", style="red")


def _drop(peer: Peer, setting: Setting) -> None:
    """Drop what the peer has loaded."""
    if peer.database is None:
        with setting.checkout.connect("warehouse") as connection:
            connection.execute(f'drop schema if exists "{peer.schema}" cascade')


def _also(peer: Peer, section: report.Section, kind: str, rows: int) -> None:
    """Time another of the peer's commands, if it has it."""
    if command := peer.more().get(kind):
        measured = command()
        section.record(peer, kind, measured, tables=[], rows=rows)
        _CONSOLE.print(f"  {kind}: {measured.seconds:.1f} s")


def _timed(  # noqa: PLR0913 - each argument has a name
    peer: Peer, setting: Setting, section: report.Section, kind: str, changed: int = 0, *, turn: int | None = None
) -> None:
    measured: Measured | None = peer.load() if turn is None else peer.load_changed(turn)
    if measured is None:
        return
    connect, rows = setting.checkout.connect, []
    with connect("source") as source, connect("warehouse", peer.database) as warehouse:
        for table in setting.dataset.keys:
            there = data.source_checksum(source, setting.dataset, table)
            try:
                here = data.checksum(warehouse, setting.dataset, peer.schema, table)
            except psycopg.errors.UndefinedTable:
                here = (None, None)
            rows.append(report.Compared(table, *there, *here))
    section.record(peer, kind, measured, tables=rows, rows=changed)
    right = all(table.is_equal for table in rows)
    _CONSOLE.print(f"  {kind}: {measured.seconds:.1f} s{'' if right else ', and the rows are WRONG'}")


if __name__ == "__main__":
    # so that SIGTERM stops the servers too
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(130)
