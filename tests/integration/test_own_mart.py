"""A mart of one's own, as the pages show it: written by their words alone, it is incremental and right."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from tests.conftest import REPOSITORY
from tests.integration.marts import keys
from tests.integration.stages import make_checkout

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.integration.checkout import Checkout

TRUTH = {
    "mart_product_sales": """
        select p.product_id, p.product_name, coalesce(sum(quantity), 0)::integer
        from marts.dim_products p left join marts.fct_sales using (product_id)
        where product_id is not null group by 1, 2
    """,
    "mart_order_sizes": """
        select order_id, sum(quantity)::integer, sum(revenue)::numeric(14, 2) from marts.fct_sales
        where order_id is not null group by 1
    """,
}


@pytest.fixture(scope="module")
def project() -> Iterator[Checkout]:
    yield from make_checkout(stage="built")


def blocks(page: str) -> list[str]:
    """Return the indented blocks of a page."""
    text = (REPOSITORY / page).read_text()
    return [
        re.sub(r"^    ", "", block, flags=re.MULTILINE)
        for block in re.findall(r"(?:^ {4}.*\n|^\n(?= {4}))+", text, re.MULTILINE)
    ]


def block(page: str, start: str) -> str:
    (found,) = (each.strip() + "\n" for each in blocks(page) if each.strip().startswith(start))
    return found


@pytest.mark.long
def test_a_mart_written_as_the_pages_say_is_incremental_and_right(project):
    marts = project.root / "transform" / "models" / "marts"
    (marts / "mart_product_sales.sql").write_text(block("docs/how-to/models.md", "{{ config(unique_key='product_id'"))
    (marts / "mart_product_sales.yml").write_text(block("docs/how-to/models.md", "models:"))
    (marts / "mart_order_sizes.sql").write_text(block("README.md", "{{ config(unique_key='order_id'"))
    (marts / "mart_order_sizes.yml").write_text(block("README.md", "models:"))
    project.build("--select", *(f"+{name}" for name in TRUTH))
    project.tidemark("demo", "change", "--rows", "100", "--seed", "5")
    project.extract_and_load()
    with project.connect("warehouse") as connection:
        # a line that moves and a line that goes, by hand
        connection.execute("update raw.order_items set order_id = order_id + 1, product_id = 1 where order_item_id = 7")
        connection.execute("delete from raw.order_items where order_item_id = 9")
    printed = project.build()
    built = keys(printed)
    for name, truth in TRUTH.items():
        assert 0 < built[name] < 200, printed
        mart = f"select * from marts.{name}"
        assert project.rows("warehouse", f"({truth} except {mart}) union all ({mart} except {truth})") == [], name
    assert keys(project.build())["mart_product_sales"] == 0
