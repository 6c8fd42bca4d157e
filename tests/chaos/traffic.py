"""A shop that stays open while everything else breaks: writers that insert, update, delete, and wait."""

from __future__ import annotations

import random
import threading
from typing import TYPE_CHECKING, Self

import psycopg

from tests.conftest import REPOSITORY

if TYPE_CHECKING:
    from collections.abc import Callable

_DAY = (REPOSITORY / "demo" / "shop" / "sql" / "change.sql").read_text()
# a transaction stays open at most this long, so that later ones overtake it
_LONGEST_S = 3.0


class Traffic:
    """Writers, each in a thread with its own connection; commits and rollbacks come in any order."""

    def __init__(self, connect: Callable[[], psycopg.Connection], *, writers: int = 3) -> None:
        self.days = 0
        self._connect = connect
        self._closing = threading.Event()
        self._errors: list[Exception] = []
        self._threads = [threading.Thread(target=self._write, args=(number,)) for number in range(writers)]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._closing.set()
        for thread in self._threads:
            thread.join()
        assert not self._errors, self._errors
        assert self.days, "nobody came"

    def _write(self, number: int) -> None:
        chance = random.Random(number)
        try:
            with self._connect() as connection:
                while not self._closing.wait(chance.uniform(0.05, 0.5)):
                    try:
                        with connection.transaction(force_rollback=chance.random() < 0.1):
                            connection.execute(f"select set_config('demo.rows', '{chance.randint(5, 60)}', true)")
                            connection.execute(_DAY)
                            self._closing.wait(chance.expovariate(4) if chance.random() < 0.8 else _LONGEST_S)
                        self.days += 1
                    except (psycopg.errors.DeadlockDetected, psycopg.errors.IntegrityError):
                        # an error of the shop, not of this project
                        continue
        except Exception as error:  # noqa: BLE001 - the waiting thread reports it
            self._errors.append(error)
