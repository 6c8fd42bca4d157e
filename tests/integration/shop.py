"""The demo shop's tables on both sides."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.integration.checkout import Checkout

TABLES = {"customers": "customer_id", "products": "product_id", "orders": "order_id", "order_items": "order_item_id"}


def assert_raw_equals_source(checkout: Checkout, *, deleted_stay: bool = False) -> None:
    """Compare every row and value."""
    for table, key in TABLES.items():
        columns = [
            name
            for (name,) in checkout.rows(
                "source",
                f"select attname from pg_attribute where attrelid = '{table}'::regclass and attnum > 0 order by attnum",
            )
        ]
        query = f"select {', '.join(columns)} from {{}} order by {key}"
        source = checkout.rows("source", query.format(table))
        raw = checkout.rows("warehouse", query.format(f"raw.{table}"))
        if deleted_stay:
            keys = {row[0] for row in source}
            raw = [row for row in raw if row[0] in keys]
        assert raw == source, table
