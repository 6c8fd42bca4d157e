"""`python -m bench.tracking`: times the loader's merge with and without the triggers that log changes.

Options: ROWS, ROUNDS (of pairs).
"""

from __future__ import annotations

import os
import time
from contextlib import contextmanager

from psycopg import sql
from rich.console import Console
from tests.conftest import REPOSITORY
from tests.integration.conftest import Checkout, make_checkout

from bench import report, transform_report
from bench.dbt_builds import settle
from singer_postgres.core.warehouse import merge
from singer_postgres.core.warehouse.metadata_columns import METADATA, Stamp

_TABLE = sql.Identifier("raw", "orders")
_STAGE = sql.Identifier("pg_temp", "orders")
_KEY = "order_id"
_COLUMNS = """
    select attname from pg_attribute where attrelid = 'raw.orders'::regclass and attnum > 0 and not attisdropped
"""
_TRIGGERS = "select tgname from pg_trigger where tgrelid = 'raw.orders'::regclass and not tgisinternal"
_ROWS_A_SCALE = 500_000
_CONSOLE = Console()


def main() -> None:
    """Load orders, build the models, which creates the triggers, and time merges with and without them in turns."""
    rows, rounds = int(os.environ.get("ROWS") or 100_000), int(os.environ.get("ROUNDS") or 7)
    seconds: dict[bool, list[float]] = {False: [], True: []}
    work = REPOSITORY / ".tidemark" / "bench"
    work.mkdir(parents=True, exist_ok=True)
    with contextmanager(make_checkout)("embedded", parent=work) as checkout:
        with _CONSOLE.status("Loading the shop and building its marts"):
            checkout.tidemark("demo", "load", "--scale", f"{rows / _ROWS_A_SCALE:g}")
            checkout.extract_and_load()
            checkout.build()
        columns = [name for (name,) in checkout.rows("warehouse", _COLUMNS) if name not in METADATA]
        assert checkout.rows("warehouse", _TRIGGERS), "no model has made dbt create triggers on raw.orders"
        _merge(checkout, columns, rows)
        for turn in range(rounds):
            # the order changes with each pair, so that what grows with time falls on both
            for tracked in (False, True) if turn % 2 == 0 else (True, False):
                _enable(checkout, enabled=tracked)
                seconds[tracked].append(_merge(checkout, columns, rows))
                _CONSOLE.print(f"pair {turn + 1}, {'with' if tracked else 'without'}: {seconds[tracked][-1]:.2f} s")
        section: transform_report.Section = {
            "rows": rows,
            "about": report.about(checkout),
            "with": seconds[True],
            "without": seconds[False],
        }
        transform_report.save(transform_report.TRACKING, section)


def _enable(checkout: Checkout, *, enabled: bool) -> None:
    with checkout.connect("warehouse") as connection:
        state = sql.SQL("enable" if enabled else "disable")
        connection.execute(sql.SQL("alter table {} {} trigger user").format(_TABLE, state))


def _merge(checkout: Checkout, columns: list[str], rows: int) -> float:
    """Return the seconds of a merge of updated rows and its commit."""
    settle(checkout)
    with checkout.connect("warehouse") as connection:
        connection.execute("checkpoint")
        # every row has another fee
        connection.execute(
            sql.SQL("create temporary table orders as select {} from {} where _sdc_deleted_at is null limit {}").format(
                merge.names(columns), _TABLE, sql.Literal(rows)
            )
        )
        connection.execute(sql.SQL("update {} set shipping_fee = shipping_fee + 1").format(_STAGE))
        connection.execute(sql.SQL("analyze {}").format(_STAGE))
        stamp = Stamp(extracted_at="now", sequence=0, sync_started_at=0)
        statement = merge.counted(merge.upsert(_STAGE, _TABLE, columns=columns, key=[_KEY], stamp=stamp))
        began = time.monotonic()
        with connection.transaction():
            written = connection.execute(statement).fetchone()
        seconds = time.monotonic() - began
        assert written == (0, rows), written
    return seconds


if __name__ == "__main__":
    main()
