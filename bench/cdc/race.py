"""Lets each tool load the same backlogs, in rounds, and compares its table with the source afterwards."""

from __future__ import annotations

import os
import subprocess
import time
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import psycopg

from bench.cdc import differences
from bench.cdc.peers.base import PUBLICATION, Peer
from bench.cdc.usage import Usage

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from rich.console import Console

    from bench.cdc.report import Race
    from bench.cdc.servers import Servers

_TIMEOUT_S = 180
_LOOK_S = 0.05
# a large value that PostgreSQL stores apart from its row, so that an update of other columns leaves it out of the log
_NOTES = "alter table items add note text; alter table items alter note set storage external"
_NOTE = """
    update items set note = (select string_agg(md5(i || '-' || id), '') from generate_series(1, 100) i)
    where mod(id, 100) = 0
"""
_UNCHANGED = "update items set quantity = quantity + 1 where mod(id, 100) = 0"
# the last change of a backlog: a tool that has it has all of them
_MARK = 0
_FAILURES = (OSError, RuntimeError, AssertionError, KeyError, ValueError, subprocess.SubprocessError, psycopg.Error)


def prepare(kinds: Sequence[type[Peer]], servers: Servers, work: Path, race: Race, console: Console) -> list[Peer]:
    """Make the table and have each tool load it; return those that are ready."""
    servers.fill()
    with servers.source() as connection:
        connection.execute("insert into items values (%s, 0, 0, 0, 0, 0, now(), now())", [_MARK])
        connection.execute(_NOTES.encode())
        connection.execute(f"create publication {PUBLICATION} for table items".encode())
    servers.settle()
    ready = []
    for kind in kinds:
        peer = kind(servers, work)
        race.add(peer)
        try:
            with console.status(f"Installing {peer.name}, and loading its table"):
                _begin(peer)
        except _FAILURES as error:
            _leave_out(peer, error, race, console)
        else:
            ready.append(peer)
    return ready


def _begin(peer: Peer) -> None:
    peer.directory.mkdir(parents=True)
    # servers that root started run as another user
    peer.directory.chmod(0o755)
    peer.prepare()
    with peer.servers.warehouse("postgres") as connection:
        connection.execute(f"create database {peer.database}".encode())
    peer.begin()


def _leave_out(peer: Peer, error: BaseException, race: Race, console: Console) -> None:
    said = " ".join(str(getattr(error, "stderr", None) or error).split())[:300]
    race.leave_out(peer, said)
    console.print(f"{peer.name} is left out: {said}", style="yellow")
    _forget(peer)


def _forget(peer: Peer) -> None:
    """End what a tool has running, and drop its slot, which would keep the log of all further rounds."""
    try:
        peer.stop()
        with peer.servers.source() as connection:
            connection.execute(
                "select pg_terminate_backend(active_pid, 5000) from pg_replication_slots "
                "where slot_name = %s and active_pid is not null",
                [peer.database],
            )
            connection.execute(
                "select pg_drop_replication_slot(slot_name) from pg_replication_slots where slot_name = %s",
                [peer.database],
            )
    except _FAILURES:
        # nobody waits for it any longer
        return


def run(peers: list[Peer], changes: int, rounds: int, race: Race, console: Console) -> Iterator[None]:
    """Run all rounds, and one that is only compared, with large values that do not change; yield after each run."""
    for turn in range(rounds + 1):
        left = [peer for peer in peers if race.goes_on(peer)]
        if not left:
            return
        servers = left[0].servers
        written = servers.write(changes) if turn < rounds else _large(servers)
        mark, end = _mark(servers, turn)
        servers.settle()
        # each round starts with another tool, so that a drift over time affects all
        for peer in left[turn % len(left) :] + left[: turn % len(left)]:
            console.print(
                f"round {turn + 1} of {rounds}: {peer.name}" if turn < rounds else f"large values: {peer.name}"
            )
            peer.end = end
            try:
                measured = _timed(peer, mark, written)
            except _FAILURES as error:
                _leave_out(peer, error, race, console)
            else:
                race.record(peer, measured, timed=turn < rounds)
                console.print(f"  {_said(measured)}")
            yield


def _large(servers: Servers) -> int:
    with servers.source() as connection:
        return sum(connection.execute(statement.encode()).rowcount for statement in (_NOTE, _UNCHANGED))


def _said(measured: dict[str, Any]) -> str:
    found = differences.Differences(**measured["differences"])
    return f"{measured['changes'] / measured['seconds']:,.0f} changes/s{f', but {found}' if found else ''}"


def _mark(servers: Servers, turn: int) -> tuple[int, str]:
    """Write the last change; return its value, and where the log ended after it."""
    with servers.source() as connection:
        connection.execute("update items set quantity = %s where id = %s", [-turn - 1, _MARK])
        row = connection.execute("select pg_current_wal_insert_lsn()::text").fetchone()
    assert row
    return -turn - 1, row[0]


def _timed(peer: Peer, mark: int, written: int) -> dict[str, Any]:
    with peer.servers.warehouse(peer.database) as connection:
        connection.execute("checkpoint")
        usage = Usage(peer.servers)
        peer.start()
        usage.watch([process.pid for process in peer.processes])
        arrived = _arrived(peer, connection, mark)
        used = usage.stop()
    if not arrived:
        if all(process.poll() is not None for process in peer.processes):
            # says why it failed, if it did
            peer.finish()
        raise RuntimeError(f"the last change did not come within {used.seconds:.0f} s: {differences.find(peer)}")
    peer.finish()
    found = differences.find(peer)
    return {**asdict(used), "changes": written, "differences": asdict(found)}


def _arrived(peer: Peer, connection: psycopg.Connection[Any], mark: int) -> bool:
    """Wait until the tool's table has the last change; say if it came before the tool ended."""
    query = f"select from {peer.schema}.items where id = {_MARK} and quantity = {mark}".encode()
    until = time.monotonic() + float(os.environ.get("PATIENCE") or _TIMEOUT_S)
    ended = False
    while time.monotonic() < until:
        # a row without columns is not true
        if connection.execute(query).fetchone() is not None:
            return True
        if ended:
            return False
        # once more after its end
        ended = bool(peer.processes) and all(process.poll() is not None for process in peer.processes)
        time.sleep(_LOOK_S)
    return False
