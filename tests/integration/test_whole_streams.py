"""FULL_TABLE streams: rows deleted in the source leave the models built on them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.integration.marts import written
from tests.integration.stages import make_checkout

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.integration.checkout import Checkout


@pytest.fixture(scope="module")
def project() -> Iterator[Checkout]:
    yield from make_checkout(stage="built")


@pytest.mark.parametrize(
    ("hard_delete", "order"),
    [pytest.param("false", 14, marks=pytest.mark.long), ("true", 13)],
    ids=["marked as deleted", "hard_delete"],
)
def test_a_row_deleted_from_a_full_table_stream_leaves_the_marts_with_the_next_build(project, hard_delete, order):
    whole = {
        "TAP_POSTGRES__METADATA": '{"public-order_items": {"replication-method": "FULL_TABLE"}}',
        "TARGET_POSTGRES_HARD_DELETE": hard_delete,
    }
    with project.connect("source") as connection:
        lines = connection.execute(f"delete from order_items where order_id = {order}").rowcount
    project.extract_and_load(whole)
    left = f"select count(*) from raw.order_items where order_id = {order}"
    assert project.rows("warehouse", left) == [(0 if hard_delete == "true" else lines,)]
    assert written(project.build("--select", "fct_sales"))["fct_sales"] == (0, 0, lines)
