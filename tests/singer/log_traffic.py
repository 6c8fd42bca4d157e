"""Writers of many kinds of transactions, and a reader that sees whether the warehouse ever has a part of one."""

from __future__ import annotations

import random
import threading
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Self

import psycopg

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.singer.conftest import Pipe

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
_SEEN = """
    select
        (select count(*) from raw._tidemark_state where stream ~ 'accounts|transfers' and not is_loading) = 2,
        (select sum(balance) from raw.accounts),
        (select count(*) from raw.transfers t where not exists (select from raw.accounts a where a.id = t.sender))
"""
# drops a column that another transaction added
_DROP = """
    do $$ declare name text; begin
        select attname into name from pg_attribute
        where attrelid = '{table}'::regclass and attname ~ 'more_' and not attisdropped limit 1;
        if found then execute format('alter table {table} drop %I', name); end if;
    end $$
"""
_LOST = (psycopg.OperationalError, psycopg.InterfaceError)


class LogTraffic:
    """Three writers and a reader, each in a thread, who connect again whenever a server was killed.

    Attributes:
        commits: the number of transactions that were committed, by kind.
        reads: how often the reader saw both tables in the cut.
        broken: the sums of money and the orphans that it should not have seen.
    """

    def __init__(self, pipe: Pipe, *, writers: int = 3) -> None:
        self.commits: dict[str, int] = {}
        self.reads = 0
        self.broken: list[tuple[int, int]] = []
        self._pipe = pipe
        self._ended = threading.Event()
        self._errors: list[Exception] = []
        self._threads = [threading.Thread(target=self._run, args=(self._write, seed)) for seed in range(writers)]
        self._threads.append(threading.Thread(target=self._run, args=(self._read, 0)))

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        for thread in self._threads:
            thread.join()
        with self._pipe.source() as connection:
            # those whose writer did not see the end of PREPARE TRANSACTION
            for (gid,) in connection.execute("select gid from pg_prepared_xacts where database = current_database()"):
                connection.execute(f"commit prepared '{gid}'".encode())
        assert not self._errors, self._errors

    def _run(self, work: Callable[[random.Random, int], int], seed: int) -> None:
        draw, number = random.Random(seed), (seed + 1) * 1_000_000
        while not self._ended.is_set():
            try:
                number = work(draw, number)
            except _LOST:
                # the server was killed
                time.sleep(0.1)
                number += 1000
            except Exception as error:  # noqa: BLE001 - the waiting thread reports it
                self._errors.append(error)
                return

    def _read(self, _: random.Random, __: int) -> int:
        with psycopg.connect(self._pipe.warehouse_url, autocommit=True) as connection:
            while not self._ended.wait(0.02):
                try:
                    row = connection.execute(_SEEN).fetchone()
                except (psycopg.errors.UndefinedTable, psycopg.errors.UndefinedColumn):
                    continue
                assert row
                complete, money, orphans = row
                self.reads += bool(complete)
                if complete and (money, orphans) != (MONEY, 0):
                    self.broken.append((money, orphans))
        return 0

    def _write(self, draw: random.Random, number: int) -> int:
        with psycopg.connect(self._pipe.source_url, autocommit=True, options="-c lock_timeout=2s") as connection:
            while not self._ended.is_set():
                number += 1
                kind, statements = transaction(draw, number)
                try:
                    self._commit(connection, draw, f"{self._pipe.directory.name}-{number}", kind, statements)
                except (
                    *(psycopg.errors.DeadlockDetected, psycopg.errors.UniqueViolation),
                    *(psycopg.errors.LockNotAvailable, psycopg.errors.ConfigurationLimitExceeded),
                    # another dropped the column first
                    psycopg.errors.UndefinedColumn,
                ):
                    connection.execute("rollback")
                time.sleep(draw.random() / 50)
        return number

    def _commit(
        self, connection: psycopg.Connection, draw: random.Random, gid: str, kind: str, statements: list[str]
    ) -> None:
        connection.execute("begin")
        for statement in statements:
            connection.execute(statement.encode())
        if draw.random() < 0.02:
            kind = "long"
            time.sleep(draw.random() * 2)
        if draw.random() < 0.05:
            kind = "aborted"
            connection.execute("rollback")
        elif draw.random() < 0.05:
            kind = "prepared"
            connection.execute(f"prepare transaction '{gid}'".encode())
            time.sleep(draw.random())
            end = "rollback" if draw.random() < 0.2 else "commit"
            while True:
                # a prepared transaction outlives its server, and its locks would stop the others
                with suppress(*_LOST), self._pipe.source() as other:
                    other.execute(f"{end} prepared '{gid}'".encode())
                    break
                time.sleep(0.1)
        else:
            connection.execute("commit")
        self.commits[kind] = self.commits.get(kind, 0) + 1


def transaction(draw: random.Random, number: int) -> tuple[str, list[str]]:
    """Return a kind and its statements, which keep the sum of all balances."""
    a, b, amount = draw.randint(1, ACCOUNTS), draw.randint(1, ACCOUNTS), draw.randint(1, 9)
    transfer = [
        # in the order of their ids, so that writers don't wait for each other in a circle
        f"update accounts set balance = balance - {amount} where id = {min(a, b)}",
        f"update accounts set balance = balance + {amount} where id = {max(a, b)}",
        f"insert into transfers (sender, receiver, amount) values ({a}, {b}, {amount})",
    ]
    first = number % 1000 + 1000
    table = draw.choice(TABLES)
    # no column gets a name that another had, which is refused
    alter = draw.choice([f"alter table {table} add more_{number} int default {amount}", _DROP.format(table=table)])
    kinds = {
        "transfer": (765, transfer),
        # a new account that a transfer names at once
        "account": (
            100,
            [
                f"insert into accounts values ({number}, 0)",
                f"insert into transfers (sender, receiver, amount) values ({number}, {a}, 0)",
            ],
        ),
        "savepoint": (
            50,
            [
                *("savepoint s", *transfer, "rollback to savepoint s"),
                f"update notes set body = repeat('{amount}', 5000) where id = {a}",
            ],
        ),
        "key": (
            50,
            [f"delete from notes where id = {a}", f"update notes set id = {number} where id = {b + ACCOUNTS}"],
        ),
        "large": (
            20,
            [
                (
                    f"insert into notes (id, body) select i, repeat('{amount}', 100) from generate_series({first}, "
                    f"{first + 1500}) i on conflict (id) do update set body = excluded.body"
                ),
            ],
        ),
        "truncate": (
            5,
            [
                "truncate notes",
                f"insert into notes (id, body) select i, repeat('{amount}', 3000) from generate_series(1, 200) i",
            ],
        ),
        # with changes of the same transaction before and after
        "columns": (
            10,
            [
                *transfer,
                alter,
                f"update notes set body = null where id = {b}",
            ],
        ),
    }
    (kind,) = draw.choices(list(kinds), [weight for weight, _ in kinds.values()])
    return kind, kinds[kind][1]
