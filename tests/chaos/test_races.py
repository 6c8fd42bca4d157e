"""Runs that start at the same moment: one of them gets the table."""

from __future__ import annotations

import threading
from contextlib import suppress

import psycopg

from singer_postgres.core.errors import BusyError
from singer_postgres.core.warehouse.connections import WarehouseConnector
from singer_postgres.core.warehouse.run_lock import RunLock
from tests.chaos.conftest import LONG

RACES = 1000 if LONG else 50
RUNNERS = 4


def test_one_of_several_runs_that_race_for_a_table_wins(pipe):
    parameters = psycopg.conninfo.conninfo_to_dict(pipe.warehouse_url)
    warehouse = WarehouseConnector(lambda: dict(parameters), "raw")
    start, decided, freed = (threading.Barrier(RUNNERS) for _ in range(3))
    winners: list[int] = []
    wins = [0] * RUNNERS
    errors: list[Exception] = []

    def run(number: int) -> None:
        try:
            for _ in range(RACES):
                lock = RunLock(warehouse)
                start.wait(timeout=60)
                with suppress(BusyError):
                    lock.take("public-orders", "raw", "orders")
                    winners.append(number)
                decided.wait(timeout=60)
                if number == 0:
                    assert len(winners) == 1, winners
                    wins[winners.pop()] += 1
                lock.close()
                freed.wait(timeout=60)
        except Exception as error:  # noqa: BLE001 - the waiting thread reports it
            errors.append(error)
            for barrier in (start, decided, freed):
                barrier.abort()

    threads = [threading.Thread(target=run, args=(number,)) for number in range(RUNNERS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors, errors
    assert sum(wins) == RACES
