"""Shared by tests of the marts: the rows that a build wrote, a reader, changes of raw, and invariants."""

from __future__ import annotations

import re
import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.integration.checkout import Checkout

BY_KEY = (
    *("dim_customers", "dim_products", "dim_customers_history", "fct_orders", "fct_sales"),
    *("mart_customer_lifetime", "mart_daily_sales"),
)
IN_PLACE = ("dim_dates", *BY_KEY)
SNAPSHOTS = ("customers_snapshot", "products_snapshot")
WRITTEN = re.compile(r"marts\.(\w+) \.* ?\[(?:\d+ keys?: )?(\d+) new, (\d+) changed, (\d+) gone in")
KEYS = re.compile(r"(?:marts|intermediate)\.(\w+) \.* ?\[(\d+) keys?: ")
UNKNOWN = "00000000-0000-0000-0000-000000000000"


FACTS_THAT_DIFFER = """
    with fact as (select order_item_id, order_id, customer_id, order_status, ordered_on, revenue from marts.fct_sales),
    view as (
        select order_item_id, order_id, customer_id, order_status, ordered_on, revenue
        from intermediate.int_order_items_enriched
    )
    (table fact except table view) union all (table view except table fact)
"""


# the sales according to orders and the aggregate, minus the lines of existing orders
UNSOLD = """
    select (select sum(revenue) from marts.fct_orders where not is_cancelled)
        + (select sum(revenue) from marts.mart_daily_sales)
        - 2 * (select sum(revenue) from marts.fct_sales where not is_cancelled)
"""

# the days by the facts and today's dimensions, without the mart
DAYS_THAT_DIFFER = """
    with days as (
        select ordered_on, coalesce(category, 'Unknown') as category, coalesce(country, 'Unknown') as country,
            sum(revenue) as revenue
        from marts.fct_sales
        left join marts.dim_products using (product_id) left join marts.dim_customers using (customer_id)
        where not is_cancelled group by 1, 2, 3
    ), mart as (select ordered_on, category, country, revenue from marts.mart_daily_sales)
    (table days except table mart) union all (table mart except table days)
"""


def written(printed: str) -> dict[str, tuple[int, int, int]]:
    """Return how many rows of each mart a build inserted, updated and deleted."""
    return {name: (int(new), int(changed), int(gone)) for name, new, changed, gone in WRITTEN.findall(printed)}


def keys(printed: str) -> dict[str, int]:
    """Return how many keys a build evaluated, for each model and snapshot that it did not compute in full."""
    return {name: int(count) for name, count in KEYS.findall(printed)}


def assert_as_a_full_build_has_them(project: Checkout) -> None:
    """Check that a full refresh writes nothing: it writes what differs, so nothing differed."""
    before = {
        name: project.rows("warehouse", f"select md5(string_agg(t::text, '' order by t::text)) from marts.{name} t")
        for name in IN_PLACE
    }
    assert written(project.build("--full-refresh", "--select", "marts")) == dict.fromkeys(IN_PLACE, (0, 0, 0))
    after = {
        name: project.rows("warehouse", f"select md5(string_agg(t::text, '' order by t::text)) from marts.{name} t")
        for name in IN_PLACE
    }
    assert after == before
    # also compare with queries that do not depend on the build
    assert project.rows("warehouse", FACTS_THAT_DIFFER) == []


def delete(table: str, where: str) -> str:
    """Return SQL that marks rows as deleted, as a reconcile does."""
    return f"update raw.{table} set _sdc_deleted_at = now(), _tidemark_loaded_xid = pg_current_xact_id() where {where}"


def undelete(table: str, where: str) -> str:
    return f"update raw.{table} set _sdc_deleted_at = null, _tidemark_loaded_xid = pg_current_xact_id() where {where}"


def load(table: str, change: str, where: str) -> str:
    """Return SQL that changes rows as a load does."""
    return f"update raw.{table} set {change}, _tidemark_loaded_xid = pg_current_xact_id() where {where}"


@contextmanager
def reading(project: Checkout, query: str) -> Iterator[list[Any]]:
    """Read in a loop; yields the result of each query, or its error."""
    answers: list[Any] = []
    stop = threading.Event()

    def read() -> None:
        with project.connect("warehouse") as connection:
            while not stop.is_set():
                try:
                    answers.append(connection.execute(query).fetchone()[0])  # type: ignore[index]
                except Exception as error:  # noqa: BLE001
                    answers.append(error)
                time.sleep(0.02)

    reader = threading.Thread(target=read)
    reader.start()
    try:
        yield answers
    finally:
        stop.set()
        reader.join()
