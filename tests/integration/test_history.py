"""The history of customers: versions for changes, deletes, restores and corrections."""

from __future__ import annotations

from decimal import Decimal
from typing import TYPE_CHECKING

import pytest

from tests.integration.marts import assert_as_a_full_build_has_them, delete, load, undelete
from tests.integration.stages import make_checkout
from tests.integration.test_in_place import edited

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.integration.checkout import Checkout


@pytest.fixture(scope="module")
def project() -> Iterator[Checkout]:
    """A loaded and built project. Each test leaves it built."""
    yield from make_checkout(stage="built")


@pytest.mark.long
def test_a_sale_finds_the_customers_version_of_that_time(project):
    with project.connect("source") as connection:
        connection.execute("update customers set city = 'Elsewhere' where customer_id = 3")
    project.extract_and_load()
    project.build()
    versions = project.rows(
        "warehouse",
        "select version, city = 'Elsewhere', is_current, valid_from < '1900-01-02' "
        "from marts.dim_customers_history where customer_id = 3 order by version",
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
def test_a_sale_older_than_its_customer_finds_the_first_version(project):
    with project.connect("source") as quick, project.connect("source") as slow, slow.transaction():
        # now() is when a transaction began: the order gets an earlier time than its customer, who was there first
        slow.execute("select now()")
        (customer,) = quick.execute(
            "insert into customers (email, first_name, last_name, country, city, address, marketing_opt_in) "
            "values ('late@example.com', 'Late', 'Comer', 'DE', 'Town', '1 Street', true) returning customer_id"
        ).fetchone()
        (order,) = slow.execute(
            "insert into orders (customer_id, status, shipping_fee, ordered_at) values (%s, 'pending', 0, now()) "
            "returning order_id",
            [customer],
        ).fetchone()
        slow.execute(
            "insert into order_items (order_id, product_id, quantity, unit_price, unit_cost) values (%s, 1, 1, 2, 1)",
            [order],
        )
    project.extract_and_load()
    project.build()
    assert project.rows(
        "source",
        "select ordered_at < customers.created_at from orders "
        f"inner join customers using (customer_id) where order_id = {order}",
    ) == [(True,)]
    found = (
        "select count(*), count(history.version) from marts.fct_sales as sales left join marts.dim_customers_history "
        "as history on sales.customer_id = history.customer_id and sales.ordered_at >= history.valid_from "
        f"and sales.ordered_at < coalesce(history.valid_to, 'infinity') where sales.order_id = {order}"
    )
    assert project.rows("warehouse", found) == [(1, 1)]
    assert project.dbt("test", "--select", "a_sale_has_one_version_of_its_customer").returncode == 0


@pytest.mark.long
def test_a_column_added_to_the_snapshot_is_filled_by_the_next_build(project):
    snapshot = project.shop / "snapshots/customers_snapshot.sql"
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
        # and nothing else changed
        project.build("--select", "customers_snapshot", "dim_customers_history")
        assert project.rows("warehouse", versions) == [(rows + customers, customers, version + 1)]
    finally:
        snapshot.write_text(before)
        with project.connect("warehouse") as connection:
            connection.execute("alter table intermediate.customers_snapshot drop column if exists initial")


TYPES = (
    "select format_type(atttypid, atttypmod) from pg_attribute "
    "where attrelid = 'intermediate.products_snapshot'::regclass and attname in ('sku', 'price') order by 1"
)


@pytest.mark.long
def test_a_widened_source_column_rounds_no_version_and_adds_no_wrong_one(project):
    current = "select price, sku from intermediate.products_snapshot where product_id = {} and dbt_valid_to is null"
    versions = "select count(*) from intermediate.products_snapshot where product_id in (1, 2)"
    ((before,),) = project.rows("warehouse", versions)
    with (
        edited(
            project,
            "models/staging/stg_products.sql",
            ("price::numeric(12, 2)", "(price + case product_id when 1 then 0.0056 else 0 end)::numeric(14, 4)"),
            ("{{ tidemark.cleaned('sku') }} as sku", "{{ tidemark.cleaned('sku') }}::varchar(70) as sku"),
        ),
        project.connect("warehouse") as connection,
    ):
        # as if the snapshot had begun with narrower types
        connection.execute("alter table intermediate.products_snapshot alter sku type varchar(40)")
        connection.execute(load("products", "price = 12.34, sku = repeat('x', 60)", "product_id = 1"))
        # touched, with the same values
        connection.execute(load("products", "price = price", "product_id = 2"))
        connection.execute("create view marts.prices as select price, sku from intermediate.products_snapshot")
        done = project.dbt("build", "--select", "stg_products", "products_snapshot", "--exclude-resource-type", "test")
        assert done.returncode == 1
        assert "cannot alter a column that a view reads: marts.prices. Drop these views" in " ".join(
            done.stdout.split()
        )
        connection.execute("drop view marts.prices")
        project.build("--select", "stg_products", "products_snapshot")
        assert project.rows("warehouse", current.format(1)) == [(Decimal("12.3456"), "x" * 60)]
        assert project.rows("warehouse", versions) == [(before + 1,)]
        assert project.rows("warehouse", TYPES) == [("character varying(70)",), ("numeric(14,4)",)]
        connection.execute(load("products", "price = price", "product_id in (1, 2)"))
        project.build("--select", "products_snapshot")
        assert project.rows("warehouse", versions) == [(before + 1,)]
        # no type holds the values of both unchanged
        with edited(project, "models/staging/stg_products.sql", ("is_active,", "is_active::text as is_active,")):
            done = project.dbt(
                "build", "--select", "stg_products", "products_snapshot", "--exclude-resource-type", "test"
            )
        assert done.returncode == 1
        assert 'products_snapshot" has is_active as boolean, the query as text' in done.stdout
        # follow the error's advice
        cast = ("        is_active,\n", "        is_active::boolean as is_active,\n")
        with (
            edited(project, "models/staging/stg_products.sql", ("is_active,", "is_active::text as is_active,")),
            edited(project, "snapshots/products_snapshot.sql", cast),
        ):
            project.build("--select", "stg_products", "products_snapshot")
    # fewer decimals need no change, but text without a limit does
    project.build("--select", "stg_products", "products_snapshot")
    assert project.rows("warehouse", TYPES) == [("numeric(14,4)",), ("text",)]
