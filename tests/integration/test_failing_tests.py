"""The shop's tests of its models: wrong rows fail the right ones, and are kept for a month."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import pytest

from tests.integration.marts import UNKNOWN, delete, load, undelete, written
from tests.integration.stages import make_checkout

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.integration.checkout import Checkout


@pytest.fixture(scope="module")
def project() -> Iterator[Checkout]:
    """A project whose models are built."""
    yield from make_checkout(stage="built")


@pytest.mark.long
def test_wrong_rows_fail_the_right_test_and_are_kept(project):
    with project.connect("warehouse") as connection:
        # an order is cancelled and deleted, but its lines are not; keys are missing
        ((cancelled, revenue),) = connection.execute(
            "select order_id, revenue from marts.fct_orders where is_cancelled and revenue > 0 limit 1"
        ).fetchall()
        connection.execute(delete("orders", f"order_id = {cancelled}"))
        connection.execute(
            f"update raw.orders set _sdc_deleted_at = now() - interval '2 hours' where order_id = {cancelled}"
        )
        connection.execute("create table raw.keyed as select order_item_id, order_id, product_id from raw.order_items")
        connection.execute(load("order_items", "product_id = null", "order_item_id = 1"))
        connection.execute(load("order_items", "order_id = null", "order_item_id = 2"))
        ((customer,),) = connection.execute("select customer_id from raw.orders where order_id = 20").fetchall()
        connection.execute(load("orders", "customer_id = null", "order_id = 20"))
    project.build("--exclude", "config.materialized:in_place_view")
    facts = "select count(*), sum(revenue), bool_and(is_cancelled), min(order_status) from marts.fct_sales where"
    ((forgotten, *said),) = project.rows("warehouse", f"{facts} order_id = {cancelled}")
    assert said == [revenue, True, "deleted"]
    assert project.rows("warehouse", f"{facts} order_item_id = 2")[0][2:] == (False, "unknown")
    assert project.rows(
        "warehouse",
        f"select (select count(*) from marts.fct_sales where order_item_id = 1 and product_key = '{UNKNOWN}'), "
        f"(select count(*) from marts.fct_orders where order_id = 20 and customer_key = '{UNKNOWN}')",
    ) == [(1, 1)]

    with project.connect("warehouse") as connection:
        # a load in progress, with a line that names no order
        connection.execute(load("order_items", "order_id = 999999", "order_item_id = 5"))
        connection.execute(load("order_items", "quantity = quantity", "order_item_id = 2"))
        connection.execute("create temporary table twin as select * from marts.fct_sales where order_item_id = 7")
        connection.execute("update twin set ordered_on = '2032-02-02'; insert into marts.fct_sales table twin")
        connection.execute("update marts.fct_orders set revenue = revenue + 0.01 where order_id = 9")
        connection.execute(
            "update raw._tidemark_runs set ended_at = now() - interval '4 days' where table_name = 'products'"
        )
        # rows that a removed test found 31 days ago, and somebody else's table
        connection.execute("set role tidemark_transformer")
        connection.execute("create schema if not exists test_failures")
        for name, days, note in (("forgotten", 31, "failed at"), ("recent", 29, "failed at"), ("notes", 31, "seen at")):
            connection.execute(f"create table test_failures.{name} ()")
            connection.execute(
                f"do $$ begin execute format('comment on table test_failures.{name} is %L', "
                f"'{note} ' || (now() - interval '{days} days')); end $$"
            )
        connection.execute("reset role")
        connection.execute("create table test_failures.theirs ()")
        connection.execute("comment on table test_failures.theirs is 'failed at 2020-01-01'")
    selected = (
        *("--select", "stg_order_items", "stg_orders", "fct_sales"),
        *("orders_agree_with_their_lines", "a_sale_has_one_version_of_its_customer"),
    )
    tested, code = project.dbt_failure("test", *selected)
    failures = [
        "a_sale_has_one_version_of_its_customer",
        "tidemark_belongs_to_stg_order_items_order_id",
        "not_null_stg_order_items_order_id",
        "not_null_stg_order_items_product_id",
        "not_null_stg_orders_customer_id",
        "orders_agree_with_their_lines",
        "unique_fct_sales_order_item_id",
    ]
    assert code == "tests_failed"
    assert re.findall(r"FAIL \d+ (\w+?)(?:__\w*)? [ .\[]", tested) == unordered(failures), tested
    assert f"FAIL {forgotten + 1} tidemark_belongs_to_stg_order_items_order_id" in tested
    kept = "select tablename from pg_tables where schemaname = 'test_failures'"
    assert [name[:20] for (name,) in project.rows("warehouse", kept)] == unordered(
        [name[:20] for name in [*failures, "recent", "notes", "theirs"]]
    )
    fresh, code = project.dbt_failure("source", "freshness", "--select", "source:raw.products", "source:raw.orders")
    assert code == "source_stale"
    assert "ERROR STALE freshness of raw.products" in fresh
    assert "PASS freshness of raw.orders" in fresh

    with project.connect("warehouse") as connection:
        connection.execute(
            "update raw.order_items i set order_id = k.order_id, product_id = k.product_id, "
            "_tidemark_loaded_xid = pg_current_xact_id() from raw.keyed k "
            "where k.order_item_id = i.order_item_id and i.order_item_id in (1, 2, 5)"
        )
        connection.execute("drop table raw.keyed")
        connection.execute(load("orders", f"customer_id = {customer}", "order_id = 20"))
        connection.execute(undelete("orders", f"order_id = {cancelled}"))
        connection.execute("update raw._tidemark_runs set ended_at = now() where table_name = 'products'")
    # this also fixes what somebody else wrote
    assert written(project.build("--full-refresh", "--select", "marts"))["fct_sales"][2] == 1
    assert project.dbt("test", *selected).returncode == 0
    assert project.rows("warehouse", kept) == unordered([("recent",), ("notes",), ("theirs",)])


def unordered(names: list[str]) -> Any:
    """Return an object that equals a list of the same names in any order."""

    class Unordered(list[str]):
        def __eq__(self, other: object) -> bool:
            return sorted(self) == sorted(other)  # type: ignore[call-overload]

        __hash__ = None  # type: ignore[assignment]

    return Unordered(names)
