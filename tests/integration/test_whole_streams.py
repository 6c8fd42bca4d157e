"""FULL_TABLE streams: rows deleted in the source leave the models built on them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.integration.conftest import make_checkout
from tests.integration.marts import written

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.integration.conftest import Checkout


@pytest.fixture(scope="module")
def project() -> Iterator[Checkout]:
    yield from make_checkout(stage="built")


@pytest.mark.parametrize(
    "hard_delete", [pytest.param("false", marks=pytest.mark.long), "true"], ids=["marked as deleted", "hard_delete"]
)
def test_a_row_deleted_from_a_full_table_stream_leaves_the_marts_with_the_next_build(project, hard_delete):
    whole = {
        "TAP_POSTGRES__METADATA": '{"public-order_items": {"replication-method": "FULL_TABLE"}}',
        "TARGET_POSTGRES_HARD_DELETE": hard_delete,
    }
    with project.connect("source") as connection:
        connection.execute("create table gone as table order_items with no data")
        connection.execute(
            "with gone as (delete from order_items where order_id = 13 returning *) insert into gone select * from gone"
        )
        ((lines,),) = connection.execute("select count(*) from gone").fetchall()
    project.extract_and_load(whole)
    left = "select count(*) from raw.order_items where order_id = 13"
    assert project.rows("warehouse", left) == [(0 if hard_delete == "true" else lines,)]
    assert written(project.build("--select", "fct_sales"))["fct_sales"] == (0, 0, lines)
    with project.connect("source") as connection:
        connection.execute("insert into order_items overriding system value table gone; drop table gone")
    project.extract_and_load(whole)
    assert written(project.build("--select", "fct_sales"))["fct_sales"] == (lines, 0, 0)
    assert written(project.build("--select", "fct_sales", "--full-refresh"))["fct_sales"] == (0, 0, 0)
