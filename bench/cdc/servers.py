"""Starts a source and a warehouse, each with an empty database, and makes the table whose changes are followed."""

from __future__ import annotations

import time
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import psycopg
from tests.integration.stages import make_checkout

from bench import report

if TYPE_CHECKING:
    import threading
    from collections.abc import Iterator
    from pathlib import Path

    from tests.integration.checkout import Checkout

SIDES = ("source", "warehouse")
DATABASE = "cdc"
A_TRANSACTION = 100
_TABLE = """
    create table items (
        id bigint primary key, order_id bigint, product_id bigint, quantity int not null,
        unit_price numeric(12, 2) not null, discount numeric(12, 2), created_at timestamptz,
        updated_at timestamptz not null
    )
"""
FILL = """
    insert into items
    select i, i / 3, mod(i, 1000), mod(i, 7) + 1, mod(i, 10000) / 100.0, mod(i, 100) / 100.0, now(), now()
    from generate_series(%s::bigint, %s::bigint) i
"""
# as many transactions as a busy application would make, at keys all over the table
_CHANGE = """
    update items set quantity = quantity + 1, updated_at = clock_timestamp()
    where id = any (array(select 1 + floor(random() * {rows})::bigint from generate_series(1, {count})))
"""


@dataclass(frozen=True)
class Servers:
    """A source with a table `items`, whose keys are 1 to `rows`, and a warehouse."""

    checkout: Checkout
    urls: dict[str, str]
    rows: int

    def source(self) -> psycopg.Connection[Any]:
        """Connect to the source."""
        return psycopg.connect(self.urls["source"], autocommit=True)

    def warehouse(self, database: str = DATABASE) -> psycopg.Connection[Any]:
        """Connect to a database of the warehouse."""
        return psycopg.connect(self.warehouse_url(database), autocommit=True)

    def warehouse_url(self, database: str = DATABASE) -> str:
        """Return the URL of a database of the warehouse."""
        return psycopg.conninfo.make_conninfo(self.urls["warehouse"], dbname=database)

    def about(self) -> str:
        """Return a sentence about the machine and the servers."""
        return report.about(self.checkout).replace("wal_level replica", "wal_level logical on the source")

    def fill(self) -> None:
        """Make the table."""
        with self.source() as connection:
            connection.execute(_TABLE)
            connection.execute(FILL, [1, self.rows])

    def settle(self) -> None:
        """Leave nothing to autovacuum and to the next checkpoint."""
        with self.source() as connection:
            connection.execute("vacuum analyze items")
        for side in SIDES:
            with psycopg.connect(self.urls[side], autocommit=True) as connection:
                connection.execute("checkpoint")

    def write(self, changes: int) -> int:
        """Update random rows, in transactions of some rows each; return how many updates these were."""
        statement = _CHANGE.format(rows=self.rows, count=A_TRANSACTION).encode()
        with self.source() as connection:
            return sum(connection.execute(statement).rowcount for _ in range(0, changes, A_TRANSACTION))

    def write_until(self, ended: threading.Event, rate: int | None = None) -> None:
        """Update rows until `ended`; at a rate, in changes a second, if there is one."""
        size = A_TRANSACTION if rate is None else max(1, rate // 100)
        statement = _CHANGE.format(rows=self.rows, count=size).encode()
        with self.source() as connection:
            began, written = time.monotonic(), 0
            while not ended.is_set():
                connection.execute(statement)
                written += size
                if rate is not None:
                    time.sleep(max(0.0, written / rate - (time.monotonic() - began)))


@contextmanager
def servers(installation: str, work: Path, rows: int) -> Iterator[Servers]:
    """Start both servers with `wal_level = logical`, and make the databases; stop and delete all in the end."""
    with contextmanager(make_checkout)(installation, parent=work) as checkout:
        checkout.tidemark("up")
        with checkout.connect("source", "postgres") as connection:
            connection.execute("alter system set wal_level = logical")
        checkout.tidemark("down")
        checkout.tidemark("up")
        urls = {}
        for side in SIDES:
            with checkout.connect(side, "postgres") as connection:
                connection.execute(f"create database {DATABASE}")
            urls[side] = psycopg.conninfo.make_conninfo(checkout.urls[side], dbname=DATABASE)
        yield Servers(checkout, urls, rows)
