"""Tap, target and both servers are killed under writers, and no reader ever sees a part of a transaction."""

from __future__ import annotations

import os
import random
import sys
import threading
import time
from contextlib import suppress
from typing import TYPE_CHECKING

import psutil
import psycopg
import pytest

from tests.singer.conftest import kill
from tests.singer.log_traffic import SETUP, TABLES, LogTraffic
from tests.singer.test_log_based import LOG_BASED, follow, log_pipe, publish, same  # noqa: F401 - a fixture

if TYPE_CHECKING:
    from tests.integration.checkout import Checkout

# `make chaos` runs more of them
CRASHES = int(os.environ.get("CRASHES", "2"))
RUN_S = 3 if "CRASHES" in os.environ else 1
SEED = int(os.environ.get("CHAOS_SEED", "1"))
VICTIMS = ("tap", "target", "source", "warehouse")


def server_of(checkout: Checkout, side: str) -> psutil.Process:
    """Return a server's first process."""
    pid_file = checkout.root / ".tidemark" / "postgres" / side / "data" / "postmaster.pid"
    return psutil.Process(int(pid_file.read_text().split()[0]))


def kill_server(checkout: Checkout, side: str) -> None:
    """Kill a server as in a crash, and start it again: it recovers from its WAL."""
    server = server_of(checkout, side)
    family = [server, *server.children()]
    server.kill()
    # they end by themselves once they notice
    _, alive = psutil.wait_procs(family, timeout=30)
    for each in alive:
        with suppress(psutil.NoSuchProcess):
            each.kill()
    checkout.tidemark("up")


@pytest.mark.usefixtures("prepares")
def test_after_kills_under_writers_every_row_is_there_and_no_reader_saw_a_part_of_a_transaction(
    installed,
    log_pipe,  # noqa: F811
):
    pipe, draw, checkout = log_pipe, random.Random(SEED), installed("embedded")
    pipe.do(SETUP)
    publish(pipe, *TABLES)
    with pipe.warehouse() as connection:
        # as some run their warehouses: what was acknowledged must outlive a crash all the same
        connection.execute(f"alter database {connection.info.dbname} set synchronous_commit = off".encode())
    pipe.tap |= {"flush_seconds": 0.2, "chunk_size_mb": 0.25, "replication_max_run_seconds": RUN_S}
    catalog = pipe.catalog({f"public-{name}": LOG_BASED for name in TABLES})
    killed, logs = dict.fromkeys(VICTIMS, 0), [""]
    if "CRASHES" not in os.environ:
        # few kills might leave no time for a first load
        follow(pipe, *TABLES)
    with LogTraffic(pipe) as traffic:
        for number in range(CRASHES):
            victim = VICTIMS[number % len(VICTIMS)]
            processes = pipe.start(catalog, pipe.state)
            time.sleep(draw.random() * (RUN_S + 1))
            if victim in {"tap", "target"}:
                kill(processes[0 if victim == "tap" else -1])
            else:
                kill_server(checkout, victim)
            killed[victim] += 1
            done = pipe.finish(processes)
            log = done.tap_log + done.target_log
            assert not done.codes & {"slot_ahead", "state_ahead"}, logs[-1] + log
            assert "Traceback" not in log, log
            logs.append(f"{victim} was killed:\n{log}")
            pipe.state = done.state or pipe.state
    pipe.tap["replication_max_run_seconds"] = 0
    follow(pipe, *TABLES)
    assert [name for name in TABLES if not same(pipe, name)] == []
    assert traffic.broken == []
    assert traffic.reads
    if "CRASHES" in os.environ:
        line = f"killed {CRASHES} times: {killed}; transactions: {traffic.commits}; reads: {traffic.reads}\n"
        sys.__stderr__.write(line)


def change_keys(url: str, seed: int, ended: threading.Event, *, again: bool) -> None:
    """Give rows keys that no row had; with `again`, also keys that another row has just left."""
    draw, number = random.Random(seed), seed * 1_000_000
    with psycopg.connect(url, autocommit=True) as connection:
        while not ended.wait(0.002):
            number += 1
            one, other = draw.randint(1, 2000), draw.randint(2001, 3000)
            statements = [
                f"update large set id = {number} where id = {one}",
                f"update large set body = repeat('{number}', 1000) where id = {one}",
                f"delete from large where id = {other}",
                f"delete from large where id = {one}; update large set id = {one} where id = {other}",
            ]
            connection.execute(statements[draw.randint(0, 3 if again else 2)].encode())


@pytest.mark.parametrize("again", [False, pytest.param(True, marks=pytest.mark.long)])
def test_rows_that_get_other_keys_while_they_are_read_for_the_first_time_keep_their_values(log_pipe, again):  # noqa: F811
    pipe = log_pipe
    pipe.do("create table large (id int primary key, body text); alter table large alter body set storage external")
    pipe.do("insert into large select i, repeat(i::text, 1000) from generate_series(1, 3000) i")
    publish(pipe, "large")
    # many small chunks, under several snapshots
    pipe.tap |= {"chunk_size_mb": 0.25, "snapshot_seconds": 0.5, "chunks_outstanding": 1}
    ended = threading.Event()
    threads = [
        threading.Thread(target=change_keys, args=(pipe.source_url, seed, ended), kwargs={"again": again})
        for seed in (1, 2)
    ]
    for thread in threads:
        thread.start()
    try:
        first = pipe.sync({"public-large": LOG_BASED})
    finally:
        ended.set()
        for thread in threads:
            thread.join()
    pipe.state = first.ok().state
    follow(pipe, "large")
    # the log can't always tell which row is which, and then the warehouse says so
    doubts = pipe.rows("select repair from raw._tidemark_state where repair ~ 'got keys that other rows had'")
    assert same(pipe, "large") or (again and doubts)
