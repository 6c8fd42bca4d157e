"""Changes of inputs that the rows of raw do not show, or that reach a mart by another column than its key."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from tests.integration.marts import (
    BY_KEY,
    DAYS_THAT_DIFFER,
    IN_PLACE,
    UNSOLD,
    assert_as_a_full_build_has_them,
    delete,
    keys,
    load,
    undelete,
    written,
)
from tests.integration.stages import make_checkout

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.integration.checkout import Checkout


@pytest.fixture(scope="module")
def project() -> Iterator[Checkout]:
    """A loaded and built project. Each test leaves it built."""
    yield from make_checkout(stage="built")


@pytest.mark.long
@pytest.mark.parametrize(
    ("dimension", "column", "key"),
    [("products", "category", "product_id"), ("customers", "country", "customer_id")],
    ids=["a product's category", "a customer's country"],
)
def test_the_days_of_a_changed_dimension_change_and_the_facts_do_not(project, dimension, column, key):
    with project.connect("warehouse") as connection:
        ((member, days),) = connection.execute(
            f"select {key}, count(distinct ordered_on) from marts.fct_sales group by {key} order by {key} limit 1"
        ).fetchall()
        connection.execute(load(dimension, f"{column} = 'QQ'", f"{key} = {member}"))
    printed = project.build()
    assert keys(printed)["mart_daily_sales"] == days
    assert keys(printed)["fct_sales"] == keys(printed)["fct_orders"] == 0
    assert project.rows("warehouse", f"select count(*) > 0 from marts.mart_daily_sales where {column} = 'QQ'") == [
        (True,)
    ]
    assert project.rows("warehouse", DAYS_THAT_DIFFER) == []
    # the view above it was refreshed
    assert project.rows("warehouse", f"select count(*) > 0 from marts.mart_monthly_sales where {column} = 'QQ'") == [
        (True,)
    ]


# what raw's rows do not show afterwards, and the marts that it must change
BY_HAND = {
    "a hard delete": (
        (
            "delete from raw.order_items where order_id = 23; delete from raw.orders where order_id = 23; "
            "delete from raw.order_items where order_item_id = 21"
        ),
        # the order, and the one that lost a line
        {"fct_orders": 2, "dim_customers": 0, "dim_products": 0},
    ),
    "a hand edit without a stamp": (
        (
            "update raw.order_items set quantity = quantity + 1 where order_item_id = 24; "
            "update raw.orders set shipping_fee = shipping_fee + 1 where order_id = 25; "
            "update raw.customers set country = 'QQ', city = 'Elsewhere' where customer_id = 7; "
            "update raw.products set category = 'Edited' where product_id = 8"
        ),
        {"fct_sales": 1, "fct_orders": 2, "dim_customers": 1, "dim_products": 1, "dim_customers_history": 2},
    ),
    "a key changed by hand": (
        (
            "update raw.order_items set order_item_id = 990026 where order_item_id = 26; "
            "update raw.order_items set order_id = 128 where order_item_id = 27"
        ),
        # the first line goes and comes under another key; the second one leaves an order for another
        {"fct_sales": 3, "fct_orders": 2},
    ),
}


@pytest.mark.parametrize(
    "change", [each if each == "a hard delete" else pytest.param(each, marks=pytest.mark.long) for each in BY_HAND]
)
def test_a_change_of_raw_by_hand_reaches_the_marts_by_the_next_build(project, change):
    statement, changed = BY_HAND[change]
    with project.connect("warehouse") as connection:
        for table in ("order_items", "orders", "customers", "products"):
            connection.execute(f"create temporary table kept_{table} as table raw.{table}")
        connection.execute(statement)
        printed = project.build()
        unsold, differing = project.rows("warehouse", UNSOLD), project.rows("warehouse", DAYS_THAT_DIFFER)
        full = written(project.build("--full-refresh", "--select", "marts"))
        # back by another change of that kind
        for table, key in (
            *(("order_items", "order_item_id"), ("orders", "order_id")),
            *(("customers", "customer_id"), ("products", "product_id")),
        ):
            connection.execute(
                f"delete from raw.{table} t where not exists (select from kept_{table} k where k = t); "
                f"insert into raw.{table} select * from kept_{table} k "
                f"where not exists (select from raw.{table} t where t.{key} = k.{key})"
            )
    assert set(keys(printed)) == set(BY_KEY), "no model computed all of its rows"
    counts = {name: sum(rows) for name, rows in written(printed).items()}
    assert {name: counts[name] for name in changed} == changed
    assert (unsold, differing) == ([(0,)], [])
    assert full == dict.fromkeys(IN_PLACE, (0, 0, 0)), "as a full build has them"
    assert set(keys(project.build())) == set(BY_KEY)
    assert project.rows("warehouse", DAYS_THAT_DIFFER) == []


@pytest.mark.long
def test_a_table_that_is_truncated_and_loaded_again_reaches_the_marts_by_the_next_build(project):
    with project.connect("warehouse") as connection, connection.transaction():
        connection.execute("create temporary table kept on commit drop as table raw.orders")
        connection.execute("truncate raw.orders")
        # without one of them, and with the stamps of before
        connection.execute("insert into raw.orders select * from kept where order_id <> 29")
        ((order,),) = connection.execute("select to_jsonb(kept) from kept where order_id = 29").fetchall()
        connection.execute(delete("order_items", "order_id = 29"))
    printed = project.build()
    assert "raw.orders was written as a whole" in " ".join(printed.split())
    assert written(printed)["fct_orders"] == (0, 0, 1)
    assert project.rows("warehouse", UNSOLD) == [(0,)]
    assert project.rows("warehouse", DAYS_THAT_DIFFER) == []
    assert_as_a_full_build_has_them(project)
    assert keys(project.build()) == dict.fromkeys(BY_KEY, 0), "and only once"
    with project.connect("warehouse") as connection:
        connection.execute(
            "insert into raw.orders select * from jsonb_populate_record(null::raw.orders, "
            "%s::jsonb - '_tidemark_loaded_xid' || jsonb_build_object('_tidemark_loaded_xid', pg_current_xact_id()))",
            [json.dumps(order)],
        )
        connection.execute(undelete("order_items", "order_id = 29"))
    assert written(project.build())["fct_orders"] == (1, 0, 0)
    assert_as_a_full_build_has_them(project)
