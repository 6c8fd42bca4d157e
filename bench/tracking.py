"""`python -m bench.tracking`: times the loader's merge with and without the triggers that log changes.

Options: ROWS, ROUNDS (of pairs).
"""

from __future__ import annotations

import os
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

from psycopg import sql
from rich.console import Console
from tests.conftest import REPOSITORY
from tests.integration.stages import make_checkout

from bench import report, transform_report
from bench.dbt_builds import settle
from singer_postgres.core.warehouse import merge
from singer_postgres.core.warehouse.metadata_columns import METADATA, Stamp

if TYPE_CHECKING:
    from tests.integration.checkout import Checkout

_TABLE = sql.Identifier("raw", "orders")
_STAGE = sql.Identifier("pg_temp", "orders")
_KEY = "order_id"
_COLUMNS = """
    select attname from pg_attribute where attrelid = 'raw.orders'::regclass and attnum > 0 and not attisdropped
"""
_TRIGGERS = "select tgname from pg_trigger where tgrelid = 'raw.orders'::regclass and not tgisinternal"
# as a model by customer has it done
_TRACK = """
    set role tidemark_transformer;
    select tidemark.track_changes('raw.orders', '{order_id, customer_id}', interval '7 days')
"""
# rows as the demo's, under further keys: the size of the table is what a merge's index pays for
_MORE = """
    insert into raw.orders ({columns}) select {values} from raw.orders
    cross join generate_series(1, %s) as copy, (select max(order_id) as highest from raw.orders) as keys
"""
_ROWS_A_SCALE = 500_000
_SHARES = (0, 10, 100)
_CONSOLE = Console()


def main() -> None:
    """Load orders, create the triggers, and time merges with and without them in turns."""
    rows, rounds = int(os.environ.get("ROWS") or 100_000), int(os.environ.get("ROUNDS") or 7)
    copies = 9
    shares: dict[int, dict[bool, list[float]]] = {share: {False: [], True: []} for share in _SHARES}
    work = REPOSITORY / ".tidemark" / "bench"
    work.mkdir(parents=True, exist_ok=True)
    with contextmanager(make_checkout)("embedded", parent=work) as checkout:
        with _CONSOLE.status("Loading the shop"):
            checkout.tidemark("demo", "load", "--scale", f"{rows / _ROWS_A_SCALE:g}")
            checkout.extract_and_load()
        columns = [name for (name,) in checkout.rows("warehouse", _COLUMNS) if name not in METADATA]
        with checkout.connect("warehouse") as connection:
            connection.execute(_TRACK)
        _grow(checkout, copies)
        _merge(checkout, columns, rows, 0)
        for turn in range(rounds):
            for share, seconds in shares.items():
                # the order changes with each pair, so that what grows with time falls on both
                for tracked in (False, True) if turn % 2 == 0 else (True, False):
                    _enable(checkout, enabled=tracked)
                    seconds[tracked].append(_merge(checkout, columns, rows, share))
                    did = f"pair {turn + 1}, {share} %, {'with' if tracked else 'without'}"
                    _CONSOLE.print(f"{did}: {seconds[tracked][-1]:.2f} s")
        section: transform_report.Section = {
            "rows": rows,
            "table_rows": rows * (copies + 1),
            "about": report.about(checkout),
            "shares": {
                str(share): {"with": seconds[True], "without": seconds[False]} for share, seconds in shares.items()
            },
        }
        transform_report.save(transform_report.TRACKING, section)


def _grow(checkout: Checkout, copies: int) -> None:
    names = [name for (name,) in checkout.rows("warehouse", _COLUMNS)]
    values = [
        sql.SQL("order_id + copy * highest") if name == _KEY else sql.Identifier("orders", name) for name in names
    ]
    with checkout.connect("warehouse") as connection:
        query = sql.SQL(_MORE).format(columns=merge.names(names), values=sql.SQL(", ").join(values))
        connection.execute(sql.SQL("alter table {} disable trigger user").format(_TABLE))
        connection.execute(query, [copies])
        connection.execute(sql.SQL("vacuum analyze {}").format(_TABLE))


def _enable(checkout: Checkout, *, enabled: bool) -> None:
    with checkout.connect("warehouse") as connection:
        # as dbt creates them
        state = sql.SQL("enable always" if enabled else "disable")
        for (name,) in checkout.rows("warehouse", _TRIGGERS):
            connection.execute(sql.SQL("alter table {} {} trigger {}").format(_TABLE, state, sql.Identifier(name)))


def _merge(checkout: Checkout, columns: list[str], rows: int, share: int) -> float:
    """Return the seconds of a merge of updated rows and its commit; `share` percent of them have another customer."""
    settle(checkout)
    with checkout.connect("warehouse") as connection:
        connection.execute("checkpoint")
        # every row has another fee
        connection.execute(
            sql.SQL(
                "create temporary table orders as select {} from {} where order_id <= (select order_id from {} "
                "order by order_id offset {} limit 1)"
            ).format(merge.names(columns), _TABLE, _TABLE, sql.Literal(rows - 1))
        )
        connection.execute(
            sql.SQL(
                "update {} set shipping_fee = shipping_fee + 1, "
                "customer_id = customer_id + case when order_id %% 100 < {} then 1 else 0 end"
            ).format(_STAGE, sql.Literal(share)),
            [],
        )
        connection.execute(sql.SQL("analyze {}").format(_STAGE))
        stamp = Stamp(extracted_at="now", sequence=0, sync_started_at=0)
        statement = merge.counted(
            merge.upsert(_STAGE, _TABLE, columns=columns, key=[_KEY], stamp=stamp), merge.Into(_TABLE, [_KEY])
        )
        began = time.monotonic()
        with connection.transaction():
            written = connection.execute(statement).fetchone()
        seconds = time.monotonic() - began
        assert written == (0, rows), written
    return seconds


if __name__ == "__main__":
    main()
