"""Models, change tracking, backups and retiring work on partitioned raw tables as on plain ones."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from tests.integration.marts import FACTS_THAT_DIFFER, assert_as_a_full_build_has_them
from tests.integration.stages import make_checkout

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.integration.checkout import Checkout

PARTITIONS = {
    "public-orders": {"by": "range", "width": 500},
    "public-order_items": {"by": "hash", "count": 4},
    "public-customers": {"by": "hash", "count": 4},
    "public-products": {"by": "range", "width": 100},
}
PARTITIONED = """
    select count(*), count(*) filter (where relkind = 'p') from pg_class
    where relnamespace = 'raw'::regnamespace and relname in ('orders', 'order_items', 'customers', 'products')
"""


@pytest.fixture(scope="module")
def project() -> Iterator[Checkout]:
    """A shop that is not loaded yet."""
    for checkout in make_checkout(stage="up"):
        checkout.env["TARGET_POSTGRES_RAW_PARTITIONS"] = json.dumps(PARTITIONS)
        checkout.tidemark("demo", "load")
        yield checkout


@pytest.mark.long
def test_the_shop_is_built_followed_backed_up_and_retired_with_partitioned_tables(project):
    project.tidemark("run", "tap-postgres", "target-postgres", "dbt-postgres:run", "dbt-postgres:test")
    assert project.rows("warehouse", PARTITIONED) == [(4, 4)]
    for _ in range(2):
        project.tidemark("demo", "change", "--rows", "200")
        project.tidemark("run", "tap-postgres", "target-postgres", "dbt-postgres:run", "dbt-postgres:test")
        assert project.rows("warehouse", FACTS_THAT_DIFFER) == []
    assert_as_a_full_build_has_them(project)
    # rows that the source has deleted
    project.tidemark("reconcile", "--repair")
    project.build()
    assert_as_a_full_build_has_them(project)
    assert project.tidemark("check").endswith("All is in order.\n")
    project.tidemark("backup")
    project.tidemark("backup", "drill")
    with project.connect("warehouse") as connection:
        connection.execute("drop schema marts, staging, intermediate cascade")
    project.tidemark("source", "retire", "postgres", "public-orders", "--drop-tables", "--yes")
    assert project.rows("warehouse", "select relname from pg_class where relname ~ '^orders(_p|$)'") == []
