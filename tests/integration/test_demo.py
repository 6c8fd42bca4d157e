"""The demo shop. Tests with the fixture `started` share one project and depend on their order."""

from __future__ import annotations

from contextlib import contextmanager

import pytest

from tests.integration.conftest import EACH_POSTGRES
from tests.integration.stages import make_checkout

FINGERPRINT = """
    select md5(string_agg(md5(row_text), '' order by row_text)) from (
        select customers::text as row_text from customers
        union all select products::text from products
        union all select orders::text from orders
        union all select order_items::text from order_items
    ) as everything
"""


@pytest.fixture(scope="module")
def started():
    yield from make_checkout(stage="up")


@pytest.mark.parametrize("installation", EACH_POSTGRES)
def test_the_same_scale_and_end_make_the_same_shop_on_every_version(installation):
    with contextmanager(make_checkout)(installation, "up") as checkout:
        checkout.tidemark("demo", "load", "--scale", "0.002", "--as-of", "2026-01-01")
        assert checkout.rows("source", FINGERPRINT) == [("5e915c94972c0e50c6eb33e84b72297d",)]


def test_a_database_with_other_tables_is_not_touched(started):
    with started.connect("source") as connection:
        connection.execute("create table precious (id int)")
    assert "precious" in started.refusal("demo", "load")
    assert "no demo shop" in started.refusal("demo", "change")
    with started.connect("source") as connection:
        connection.execute("drop table precious")


def test_loading_twice_changes_nothing_and_another_shop_is_refused(started):
    assert "Loaded" in started.tidemark("demo", "load", "--scale", "0.01")
    before = started.rows("source", FINGERPRINT)
    assert "Found" in started.tidemark("demo", "load", "--scale", "0.01")
    error = started.refusal("demo", "load", "--scale", "0.002")
    assert "scale 0.01" in error
    assert "tidemark reset" in error
    assert "tidemark reset" in started.refusal("demo", "load", "--scale", "0.01", "--as-of", "2020-01-01")
    assert started.rows("source", FINGERPRINT) == before


def test_stamps_come_from_the_trigger_and_cover_three_years(started):
    ((years,),) = started.rows("source", "select count(distinct date_trunc('year', updated_at)) from orders")
    assert years >= 3
    with started.connect("source") as connection:
        row = connection.execute(
            "update orders set updated_at = '1999-01-01', created_at = '1999-01-01' where order_id = 1 "
            "returning updated_at = now(), created_at = ordered_at"
        ).fetchone()
    assert row == (True, True)


def test_a_day_of_traffic_is_stamped_now_and_touches_all_four_tables(started):
    ((before,),) = started.rows("source", "select now()")
    printed = started.tidemark("demo", "change", "--rows", "1000", "--seed", "7")
    for what in ("address changed", "price changed", "status moved", "new", "deleted"):
        assert what in printed
    for table in ("customers", "products", "orders", "order_items"):
        ((touched, wrong),) = started.rows(
            "source",
            f"select count(*) filter (where updated_at >= '{before}'), "
            f"count(*) filter (where updated_at < created_at) from {table}",
        )
        assert touched > 0
        assert wrong == 0
    ((touched,),) = started.rows(
        "source",
        " union all ".join(
            f"select count(*) from {table} where updated_at >= '{before}'"
            for table in ("customers", "products", "orders", "order_items")
        ).join(("select sum(count)::int from (", ") as counts")),
    )
    assert 500 <= touched <= 1500
