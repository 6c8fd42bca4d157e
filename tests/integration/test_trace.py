"""`tidemark trace` and `tidemark status`: where a row is and which run put it there; how each stream stands."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from tests.integration.conftest import make_checkout

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.integration.conftest import Checkout


@pytest.fixture(scope="module")
def shop() -> Iterator[Checkout]:
    for checkout in make_checkout():
        checkout.tidemark("demo", "load", "--scale", "0.001")
        checkout.tidemark("up")
        checkout.extract_and_load()
        assert checkout.run("meltano", "invoke", "dbt-postgres:run").returncode == 0
        yield checkout


def trace(shop: Checkout, key: int) -> dict[str, dict[str, Any]]:
    return {place["name"]: place for place in json.loads(shop.tidemark("trace", "public-orders", str(key), "--json"))}


def test_a_row_is_followed_to_the_facts_with_the_run_that_loaded_it(shop):
    places = trace(shop, 42)
    assert list(places)[:2] == ["public.orders", "raw.orders"]
    assert places["public.orders"]["rows"][0]["order_id"] == 42
    assert places["raw.orders"]["said"].startswith("as in the source; read 20")
    ((run_id,),) = shop.rows("warehouse", "select run_id from raw._tidemark_runs where stream = 'public-orders'")
    assert places["raw.orders"]["run"]["run_id"] == run_id
    assert places["staging.stg_orders"]["count"] == places["marts.fct_orders"]["count"] == 1
    ((lines,),) = shop.rows("source", "select count(*) from order_items where order_id = 42")
    assert places["marts.fct_sales"]["count"] == lines
    printed = shop.tidemark("trace", "public-orders", "42")
    assert "raw.orders: as in the source; read 20" in printed
    assert run_id in printed


def test_a_row_that_is_not_the_same_everywhere_is_said_to_be_so(shop):
    with shop.connect("source") as connection:
        connection.execute("update orders set shipping_fee = 99, updated_at = now() where order_id = 7")
        connection.execute("delete from order_items where order_id = 8; delete from orders where order_id = 8")
    assert trace(shop, 7)["raw.orders"]["said"].startswith("differs, and the next run reads it")
    places = trace(shop, 8)
    assert places["public.orders"]["count"] == 0
    assert places["raw.orders"]["said"].startswith("not in the source: see `tidemark reconcile`")


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["public-orders", "seven"], "seven is no key of public-orders: order_id (bigint)"),
        (["public-orders", "7", "8"], "The key of public-orders is order_id"),
        (["public-orders", "7000000"], "public-orders has no row 7000000"),
        (["public-order", "7"], "No such stream is selected: public-order; selected are public-customers"),
    ],
)
def test_what_is_not_there_is_told(shop, arguments, told):
    assert told in shop.refusal("trace", *arguments)


def test_status_shows_the_latest_run_of_each_stream_and_its_age(shop):
    facts = [json.loads(line) for line in shop.tidemark("status", "--json").splitlines()]
    runs = {fact["stream"]: fact for fact in facts if "stream" in fact}
    assert set(runs) == {f"public-{table}" for table in ("customers", "orders", "order_items", "products")}
    orders = runs["public-orders"]
    assert (orders["outcome"], orders["rows_read"], orders["rows_inserted"]) == ("succeeded", 500, 500)
    assert 0 <= orders["age_seconds"] < 600
    printed = shop.tidemark("status")
    assert "public-orders" in printed
    assert "0 min" in printed
