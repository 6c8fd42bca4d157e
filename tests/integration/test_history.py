"""What customers were: versions, which follow what was changed, deleted, restored and corrected."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.integration.conftest import make_checkout
from tests.integration.marts import assert_as_a_full_build_has_them, delete, undelete

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.integration.conftest import Checkout


@pytest.fixture(scope="module")
def project() -> Iterator[Checkout]:
    """A project that was loaded and built. Each test leaves it built."""
    yield from make_checkout(stage="built")


@pytest.mark.long
def test_a_sale_finds_its_customer_as_they_were(project):
    with project.connect("source") as connection:
        connection.execute("update customers set city = 'Elsewhere' where customer_id = 3")
    project.extract_and_load()
    project.build()
    versions = project.rows(
        "warehouse",
        "select version, history.city = 'Elsewhere', is_current, valid_from = created_at "
        "from marts.dim_customers_history as history "
        "inner join marts.dim_customers using (customer_id) where customer_id = 3 order by version",
    )
    assert versions[0][1:] == (False, False, True)
    assert versions[-1][1:] == (True, True, False)
    with project.connect("warehouse") as connection:
        connection.execute(delete("customers", "customer_id = 3"))
    project.build()
    assert project.rows(
        "warehouse", "select is_deleted from marts.dim_customers_history where customer_id = 3 and is_current"
    ) == [(True,)]
    assert project.dbt("test", "--select", "a_sale_has_one_version_of_its_customer").returncode == 0
    with project.connect("warehouse") as connection:
        connection.execute(undelete("customers", "customer_id = 3"))
    project.build()
    assert_as_a_full_build_has_them(project)


@pytest.mark.long
def test_a_column_that_history_is_to_follow_as_well_is_filled_by_the_next_build(project):
    snapshot = project.root / "transform/snapshots/customers_snapshot.sql"
    before = snapshot.read_text()
    snapshot.write_text(
        before.replace("'is_deleted',\n", "'is_deleted', 'initial',\n").replace(
            "        created_at,\n", "        created_at,\n        left(last_name, 1) as initial,\n"
        )
    )
    versions = "select count(*), count(*) filter (where is_current), max(version) from marts.dim_customers_history"
    ((rows, customers, version),) = project.rows("warehouse", versions)
    try:
        project.build("--select", "customers_snapshot", "dim_customers_history")
        assert project.rows("warehouse", versions) == [(rows + customers, customers, version + 1)]
        assert project.rows(
            "warehouse",
            "select bool_and(initial = left(last_name, 1)) from intermediate.customers_snapshot "
            "where dbt_valid_to is null",
        ) == [(True,)]
        tested = project.dbt("test", "--select", "customers_snapshot+")
        assert tested.returncode == 0, tested.stdout
        # and no more of it
        project.build("--select", "customers_snapshot", "dim_customers_history")
        assert project.rows("warehouse", versions) == [(rows + customers, customers, version + 1)]
    finally:
        snapshot.write_text(before)
        with project.connect("warehouse") as connection:
            connection.execute("alter table intermediate.customers_snapshot drop column if exists initial")
