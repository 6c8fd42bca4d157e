"""Views and their dependents when the views are built again and when they change."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.integration.stages import make_checkout
from tests.integration.test_in_place import edited, refused

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.integration.checkout import Checkout

SKU = "        {{ tidemark.cleaned('sku') }} as sku,\n"
LOUD = (SKU, "        upper({{ tidemark.cleaned('sku') }}) as loud,\n" + SKU)
COLUMNS = (
    "select array_agg(attname::text order by attnum) from pg_attribute "
    "where attrelid = 'staging.stg_products'::regclass"
)
GRANTED = (
    "select table_schema || '.' || table_name, privilege_type from information_schema.role_table_grants "
    "where grantee = 'viewer' and privilege_type = 'SELECT' and table_name not like '%\\_\\_old\\_%' order by 1"
)
SET_ASIDE = "select relname from pg_class where relname like '%\\_\\_old\\_%' order by 1"


@pytest.fixture(scope="module")
def project() -> Iterator[Checkout]:
    for project in make_checkout(stage="built"):
        with project.connect("warehouse") as connection:
            connection.execute(
                "create role viewer; grant select on staging.stg_products, intermediate.int_order_items_enriched, "
                "marts.mart_monthly_sales to viewer; grant select (order_id) on staging.stg_orders to viewer"
            )
        yield project


def views_work(project: Checkout) -> bool:
    return project.rows(
        "warehouse",
        "select (select count(*) from intermediate.int_order_items_enriched) > 0 "
        "and (select count(*) from marts.mart_monthly_sales) > 0",
    ) == [(True,)]


@pytest.mark.long
def test_a_long_reader_of_an_unchanged_view_delays_no_run(project):
    # a definition that is only formatted differently has not changed, and it may end with a comment
    same = ("select * from final\n", "select *\nfrom final -- that is all\n")
    with (
        edited(project, "models/marts/mart_monthly_sales.sql", same),
        edited(project, "models/staging/stg_products.sql", ("-- numbers\n", "-- figures\n")),
        project.connect("warehouse") as reader,
        reader.transaction(),
    ):
        reader.execute("select 1 from intermediate.int_order_items_enriched, intermediate.int_orders_enriched limit 1")
        reader.execute("select 1 from staging.stg_customers, marts.mart_monthly_sales limit 1")
        printed = project.build(
            "--select", "staging", "intermediate", "mart_monthly_sales", "--vars", '{"in_place_lock_attempts": 1}'
        )
    assert printed.count("[unchanged in") == 6
    assert "[nothing below it changed in" in printed


@pytest.mark.long
def test_a_new_column_comes_last_and_dependents_of_the_view_stay(project):
    with project.connect("warehouse") as connection:
        ((before,),) = connection.execute(COLUMNS).fetchall()
        connection.execute("create view public.skus as select sku from staging.stg_products")
        granted = connection.execute(GRANTED).fetchall()
    quoted = ("        -- ids\n        product_id,\n", "        -- ids\n        product_id, '$definition$' as money,\n")
    with edited(project, "models/staging/stg_products.sql", LOUD, quoted):
        project.build("--select", "stg_products")
        assert project.rows("warehouse", COLUMNS) == [([*before, "money", "loud"],)]
        assert "[unchanged in" in project.build("--select", "stg_products")
        assert views_work(project)
        assert project.rows("warehouse", "select count(*) > 0 from public.skus") == [(True,)]
        assert project.rows("warehouse", GRANTED) == granted
        assert project.rows("warehouse", SET_ASIDE) == []
    # now two of its columns are removed, and a view that no model makes reads them
    with project.connect("warehouse") as connection:
        connection.execute("create view public.louds as select loud from staging.stg_products")
    said = refused(project, "stg_products")
    assert 'stg_products" is to change (money, loud), but other views depend on it: public.louds, public.skus.' in said
    assert project.rows("warehouse", "select count(*) > 0 from public.louds") == [(True,)]
    with project.connect("warehouse") as connection:
        connection.execute("drop view public.louds, public.skus")
    project.build("--select", "stg_products")
    assert project.rows("warehouse", COLUMNS) == [(before,)]
    assert views_work(project)
    assert project.rows("warehouse", GRANTED) == granted
    project.build()
    assert project.rows("warehouse", SET_ASIDE) == []


@pytest.mark.long
def test_a_retyped_column_breaks_no_view_of_another_model_whenever_that_is_built(project):
    granted = project.rows("warehouse", GRANTED)
    columns = (
        "select attname from pg_attribute where attrelid = 'staging.stg_orders'::regclass "
        "and array_to_string(attacl, ' ') like '%viewer=r%'"
    )
    held = project.rows("warehouse", columns)
    fee = ("shipping_fee::numeric(12, 2) as", "shipping_fee::numeric(12, 3) as")
    with edited(project, "models/staging/stg_orders.sql", fee):
        project.build("--select", "stg_orders")
        # its dependents still read the definition that they were built on
        ((aside,),) = project.rows("warehouse", SET_ASIDE)
        assert aside.startswith("stg_orders__old_")
        assert views_work(project)
        assert project.rows("warehouse", columns) == held
        # the new type reaches all dependents, and the last of them drops the old view
        project.build("--select", "intermediate")
        assert project.rows("warehouse", SET_ASIDE) == []
        assert views_work(project)
    project.build()
    assert project.rows("warehouse", SET_ASIDE) == []
    assert project.rows("warehouse", GRANTED) == granted


@pytest.mark.long
def test_a_materialized_view_keeps_grants_and_owner_when_its_definition_changes(project):
    granted = project.rows("warehouse", GRANTED)
    with project.connect("warehouse") as connection:
        connection.execute(
            "create view public.months as select month from marts.mart_monthly_sales;"
            "create role guild; grant guild to tidemark_transformer; grant create on schema marts to guild;"
            "grant tidemark_reporter to guild; alter materialized view marts.mart_monthly_sales owner to guild"
        )
    larger = ("sum(line_count)::integer as line_count", "sum(line_count)::integer + 1 as line_count")
    total = "select sum(line_count) from marts.mart_monthly_sales"
    before = project.rows("warehouse", total)
    constrained = ("        data_type: date\n", "        data_type: date\n        constraints: [{type: not_null}]\n")
    with edited(project, "models/marts/mart_monthly_sales.yml", constrained):
        assert "has not_null in its contract, but a view has no constraints" in refused(project, "mart_monthly_sales")
    with edited(project, "models/marts/mart_monthly_sales.sql", larger):
        said = refused(project, "mart_monthly_sales")
        assert 'mart_monthly_sales" is to change (its definition), but other views depend on it: public.months.' in said
        assert project.rows("warehouse", total) == before
        with project.connect("warehouse") as connection:
            connection.execute("drop view public.months")
        project.build("--select", "mart_monthly_sales")
        assert project.rows("warehouse", total) > before
    assert project.rows("warehouse", GRANTED) == granted
    index = (
        "indexes=[{'columns': ['month', 'category', 'country'], 'unique': true}]",
        "indexes=[{'columns': ['month', 'category', 'country'], 'unique': true}, {'columns': ['country']}]",
    )
    with edited(project, "models/marts/mart_monthly_sales.sql", index):
        project.build("--select", "mart_monthly_sales")
        project.build("--select", "mart_monthly_sales")
    assert project.rows("warehouse", total) == before
    assert project.rows("warehouse", GRANTED) == granted
    owner = "select relowner::regrole::text from pg_class where oid = 'marts.mart_monthly_sales'::regclass"
    assert project.rows("warehouse", owner) == [("guild",)]
    indexes = "select count(*) from pg_index where indrelid = 'marts.mart_monthly_sales'::regclass"
    assert project.rows("warehouse", indexes) == [(2,)]
    assert project.rows("warehouse", SET_ASIDE) == []
