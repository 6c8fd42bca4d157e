"""Tap and target of LOG_BASED streams are killed under writers, and no reader ever sees a part of a transaction."""

from __future__ import annotations

import os
import random
import threading
import time

import psycopg
import pytest

from tests.singer.conftest import kill
from tests.singer.test_log_based import LOG_BASED, follow, log_pipe, publish, same  # noqa: F401 - a fixture

# `make chaos` runs more of them
CRASHES = int(os.environ.get("CRASHES", "4"))
TABLES = ("accounts", "transfers", "notes")
ACCOUNTS, MONEY = 50, 50_000
SETUP = f"""
    create table accounts (id int primary key, balance bigint not null);
    create table transfers (id bigserial primary key, sender int not null, receiver int not null, amount int not null);
    create table notes (id int primary key, body text);
    alter table notes alter body set storage external;
    insert into accounts select i, {MONEY // ACCOUNTS} from generate_series(1, {ACCOUNTS}) i;
    insert into notes select i, repeat('n', 4000) from generate_series(1, 200) i;
"""
# whether both tables are in the cut, the money that there is, and transfers from accounts that are not there
SEEN = """
    select
        (select count(*) from raw._tidemark_state where stream ~ 'accounts|transfers' and not is_loading) = 2,
        (select sum(balance) from raw.accounts),
        (select count(*) from raw.transfers t where not exists (select from raw.accounts a where a.id = t.sender))
"""


def transaction(draw: random.Random, number: int) -> list[str]:
    """Return statements that keep the sum of all balances; sometimes some that change large rows."""
    a, b, amount = draw.randint(1, ACCOUNTS), draw.randint(1, ACCOUNTS), draw.randint(1, 9)
    transfer = [
        # in the order of their ids, so that writers don't wait for each other in a circle
        f"update accounts set balance = balance - {amount} where id = {min(a, b)}",
        f"update accounts set balance = balance + {amount} where id = {max(a, b)}",
        f"insert into transfers (sender, receiver, amount) values ({a}, {b}, {amount})",
    ]
    kind = draw.random()
    if kind < 0.1:
        # a new account that a transfer names at once
        return [
            f"insert into accounts values ({number}, 0)",
            f"insert into transfers (sender, receiver, amount) values ({number}, {a}, 0)",
        ]
    if kind < 0.15:
        change = f"update notes set body = repeat('{amount}', 5000) where id = {a}"
        return ["savepoint s", *transfer, "rollback to savepoint s", change]
    if kind < 0.2:
        return [f"delete from notes where id = {a}", f"update notes set id = {number} where id = {b + ACCOUNTS}"]
    if kind < 0.22:
        first = number % 1000 + 1000
        return [
            (
                f"insert into notes select i, repeat('{amount}', 100) from generate_series({first}, {first + 1500}) i "
                "on conflict (id) do update set body = excluded.body"
            )
        ]
    if kind < 0.225:
        return [
            "truncate notes",
            f"insert into notes select i, repeat('{amount}', 3000) from generate_series(1, 200) i",
        ]
    return transfer


def write(url: str, seed: int, ended: threading.Event) -> None:
    draw, number = random.Random(seed), (seed + 1) * 1_000_000
    with psycopg.connect(url, autocommit=True) as connection:
        while not ended.is_set():
            number += 1
            try:
                connection.execute("begin")
                for statement in transaction(draw, number):
                    connection.execute(statement.encode())
                if draw.random() < 0.02:
                    time.sleep(draw.random() * 2)
                connection.execute("rollback" if draw.random() < 0.05 else "commit")
            except (psycopg.errors.DeadlockDetected, psycopg.errors.UniqueViolation):
                connection.execute("rollback")
            time.sleep(draw.random() / 50)


def read(url: str, ended: threading.Event, wrong: list[tuple[int, int]]) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        while not ended.wait(0.02):
            try:
                row = connection.execute(SEEN).fetchone()
            except (psycopg.errors.UndefinedTable, psycopg.errors.UndefinedColumn):
                continue
            assert row
            complete, money, orphans = row
            if complete and (money, orphans) != (MONEY, 0):
                wrong.append((money, orphans))


def test_after_kills_under_writers_every_row_is_there_and_no_reader_saw_a_part_of_a_transaction(log_pipe):  # noqa: F811
    pipe, draw = log_pipe, random.Random(1)
    pipe.do(SETUP)
    publish(pipe, *TABLES)
    pipe.tap |= {"flush_seconds": 0.2, "chunk_size_mb": 0.25, "replication_max_run_seconds": 3}
    ended, wrong = threading.Event(), []
    threads = [threading.Thread(target=write, args=(pipe.source_url, seed, ended)) for seed in range(3)]
    threads.append(threading.Thread(target=read, args=(pipe.warehouse_url, ended, wrong)))
    for thread in threads:
        thread.start()
    catalog = pipe.catalog({f"public-{name}": LOG_BASED for name in TABLES})
    try:
        for _ in range(CRASHES):
            processes = pipe.start(catalog, pipe.state)
            time.sleep(draw.random() * 4)
            kill(processes[draw.choice([0, -1])])
            done = pipe.finish(processes)
            log = done.tap_log + done.target_log
            assert not done.codes & {"slot_ahead", "state_ahead"}, log
            assert "Traceback" not in log
            pipe.state = done.state or pipe.state
    finally:
        ended.set()
        for thread in threads:
            thread.join()
    pipe.tap["replication_max_run_seconds"] = 0
    follow(pipe, *TABLES)
    assert [name for name in TABLES if not same(pipe, name)] == []
    assert wrong == []


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
    if again and first.codes:
        # the log can't always tell which row is which, and then nothing is merged
        assert "got keys that other rows had" in first.refused("not_loaded_yet")
        return
    pipe.state = first.ok().state
    follow(pipe, "large")
    assert same(pipe, "large")
