"""`tidemark trace`: where a row of the source is, up to the marts."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from tests.integration.stages import make_checkout

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.integration.checkout import Checkout


@pytest.fixture(scope="module")
def checkout() -> Iterator[Checkout]:
    """A project whose models are built."""
    yield from make_checkout(stage="built")


def trace(checkout: Checkout, key: int) -> dict[str, dict[str, Any]]:
    return {
        place["name"]: place for place in json.loads(checkout.tidemark("trace", "public-orders", str(key), "--json"))
    }


def test_a_row_is_followed_to_the_facts_with_the_run_that_loaded_it(checkout):
    places = trace(checkout, 42)
    assert list(places)[:2] == ["public.orders", "raw.orders"]
    assert places["public.orders"]["rows"][0]["order_id"] == 42
    assert places["raw.orders"]["said"].startswith("as in the source; read 20")
    run_id = places["raw.orders"]["run"]["run_id"]
    assert checkout.rows(
        "warehouse", f"select count(*) from raw._tidemark_runs where run_id = '{run_id}' and stream = 'public-orders'"
    ) == [(1,)]
    assert places["staging.stg_orders"]["count"] == places["marts.fct_orders"]["count"] == 1
    ((lines,),) = checkout.rows("source", "select count(*) from order_items where order_id = 42")
    assert places["marts.fct_sales"]["count"] == lines
    printed = checkout.tidemark("trace", "public-orders", "42")
    assert "raw.orders: as in the source; read 20" in printed
    assert run_id in printed


def test_a_row_that_differs_somewhere_is_reported(checkout):
    with checkout.connect("source") as connection:
        connection.execute("update orders set shipping_fee = 99, updated_at = now() where order_id = 7")
        connection.execute("delete from order_items where order_id = 8; delete from orders where order_id = 8")
    assert trace(checkout, 7)["raw.orders"]["said"].startswith("differs, and the next run reads it")
    places = trace(checkout, 8)
    assert places["public.orders"]["count"] == 0
    assert places["raw.orders"]["said"].startswith("not in the source: see `tidemark reconcile`")


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["public-orders", "seven"], "seven is not a valid key of public-orders: write order_id (bigint)"),
        (["public-orders", "7", "8"], "The key of public-orders is order_id"),
        (["public-orders", "7000000"], "public-orders has no row 7000000"),
        (["public-order", "7"], "No such stream is selected: public-order; selected are public-customers"),
    ],
)
def test_a_missing_row_or_stream_is_reported(checkout, arguments, told):
    assert told in checkout.refusal("trace", *arguments)
    assert checkout.logged_code() == ("command_failed" if "7000000" in arguments else "setting_invalid")
