"""What a kept table refuses, follows and leaves alone; and a developer's own copies."""

from __future__ import annotations

import re
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from tests.integration.conftest import make_built
from tests.integration.marts import assert_as_a_full_build_has_them, load, written

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.integration.conftest import Checkout


@pytest.fixture(scope="module")
def project() -> Iterator[Checkout]:
    yield from make_built()


@contextmanager
def edited(project: Checkout, path: str, *changes: tuple[str, str]) -> Iterator[None]:
    """Change a file of the dbt project for a while."""
    file = project.root / "transform" / path
    before = content = file.read_text()
    for old, new in changes:
        assert old in content
        content = content.replace(old, new)
    file.write_text(content)
    try:
        yield
    finally:
        file.write_text(before)


def refused(project: Checkout, *arguments: str) -> str:
    """Build what is meant to be refused; return what dbt said."""
    done = project.dbt("run", "--select", *arguments)
    assert done.returncode == 1, done.stdout
    return done.stdout


@pytest.mark.long
def test_a_type_that_breaks_the_contract_is_refused_before_anything_is_written(project):
    wrong = (
        "data_type: numeric(12, 2)\n        description: Today's price.",
        "data_type: text\n        description: x",
    )
    with edited(project, "models/marts/dim_products.yml", wrong):
        said = refused(project, "dim_products")
    assert "This model has an enforced contract that failed" in said
    assert re.search(r"price +\| DECIMAL +\| TEXT", said), said
    assert_as_a_full_build_has_them(project)


@pytest.mark.long
def test_a_key_that_is_there_twice_is_refused_and_named(project):
    with edited(
        project,
        "models/marts/dim_products.sql",
        ("select * from known\n", "select * from known union all table known\n"),
    ):
        said = refused(project, "dim_products", "--full-refresh")
    assert "the model gives 2 row(s) with product_key = (" in said
    assert_as_a_full_build_has_them(project)


@pytest.mark.long
def test_columns_are_added_and_dropped_in_place_where_that_is_asked_for(project):
    with project.connect("warehouse") as connection:
        connection.execute("create view public.colours as select product_id, color from marts.dim_products")
    column = (
        "        attributes ->> 'color' as color,\n",
        "        attributes ->> 'color' as color,\n        sku || '!' as loud,\n",
    )
    member = ("'Unknown', 'Unknown', null, null,\n", "'Unknown', 'Unknown', null, null, 'x',\n")
    described = (
        "      - name: price\n",
        "      - name: loud\n        data_type: text\n        description: x\n      - name: price\n",
    )
    with (
        edited(project, "models/marts/dim_products.sql", column, member),
        edited(project, "models/marts/dim_products.yml", described),
    ):
        said = refused(project, "dim_products")
        assert 'dim_products" lacks loud (text). Run it once with --full-refresh' in said
        project.build("--select", "dim_products", "--full-refresh")
        assert project.rows("warehouse", "select count(*) from marts.dim_products where loud is null") == [(0,)]
    assert "has loud (text), which the model lacks" in refused(project, "dim_products")
    project.build("--select", "dim_products", "--full-refresh")
    assert project.rows("warehouse", "select count(*) > 0 from public.colours") == [(True,)]
    assert_as_a_full_build_has_them(project)


@pytest.mark.long
def test_new_columns_are_appended_and_grants_applied_where_the_model_says_so(project):
    with project.connect("warehouse") as connection:
        connection.execute("create role analyst; create role intern; grant select on marts.dim_products to intern")
    plain = "{{ config(unique_key='product_key') }}"
    configured = plain.replace(
        ")", ", on_schema_change='append_new_columns', contract={'enforced': false}, grants={'select': ['analyst']})"
    )
    allowed = (
        "select grantee from information_schema.role_table_grants where table_schema = 'marts' "
        "and table_name = 'dim_products' and grantee in ('analyst', 'intern') and privilege_type = 'SELECT'"
    )
    column = (
        "        attributes ->> 'color' as color,\n",
        "        attributes ->> 'color' as color,\n        1 as one,\n",
    )
    member = ("'Unknown', 'Unknown', null, null,\n", "'Unknown', 'Unknown', null, null, 1,\n")
    with edited(project, "models/marts/dim_products.sql", (plain, configured), column, member):
        project.build("--select", "dim_products")
        with project.connect("warehouse") as connection:
            connection.execute(load("products", "price = price + 1", "product_id = 1"))
        project.build("--select", "dim_products")
        # what no build had to look at again has none yet
        filled = project.rows("warehouse", "select product_id from marts.dim_products where one = 1 order by 1")
        assert (1,) in filled
        assert (2,) not in filled
        assert project.rows("warehouse", allowed) == [("analyst",)]
    with edited(project, "models/marts/dim_products.sql", (plain, configured)):
        project.build("--select", "dim_products")
        # and a column that the model gave up stays
        assert project.rows("warehouse", "select count(*) > 0 from marts.dim_products where one = 1") == [(True,)]
    project.build("--select", "dim_products", "--full-refresh")
    assert_as_a_full_build_has_them(project)


@pytest.mark.long
def test_a_table_that_others_keep_locked_is_left_as_it_is_and_the_build_says_who_to_look_for(project):
    patient = '{"kept_lock_attempts": 2, "kept_lock_timeout": "50ms"}'
    index = (
        "{{ config(unique_key='product_key') }}",
        "{{ config(unique_key='product_key', indexes=[{'columns': ['sku']}]) }}",
    )
    with (
        edited(project, "models/marts/dim_products.sql", index),
        project.connect("warehouse") as writer,
        writer.transaction(),
    ):
        writer.execute("lock table marts.dim_products in row exclusive mode")
        said = refused(project, "dim_products", "--vars", patient)
    assert "could not be altered: others kept it locked in each of 2 attempts" in said
    assert "See pg_stat_activity" in said
    assert_as_a_full_build_has_them(project)


@pytest.mark.long
def test_what_is_of_another_kind_is_never_dropped(project):
    with project.connect("warehouse") as connection:
        connection.execute(
            "alter table marts.dim_dates rename to dim_dates_; create view marts.dim_dates as select 1 as x"
        )
    said = refused(project, "dim_dates")
    assert "is a view and the model makes a plain table" in said
    with project.connect("warehouse") as connection:
        connection.execute("drop view marts.dim_dates; alter table marts.dim_dates_ rename to dim_dates")
    assert_as_a_full_build_has_them(project)


@pytest.mark.long
def test_a_warehouse_that_was_restored_elsewhere_is_built_whole_once(project):
    with project.connect("warehouse") as connection:
        # another cluster's transactions are numbered anew: these would be far ahead of its own
        connection.execute("update marts._tidemark_models set horizon = '999999999', cluster = 'another'")
        connection.execute(load("orders", "shipping_fee = shipping_fee + 1", "order_id = 50"))
    assert written(project.build())["fct_orders"] == (0, 1, 0)
    assert_as_a_full_build_has_them(project)


@pytest.mark.long
def test_strays_in_the_default_partition_are_moved_to_their_own(project):
    with project.connect("warehouse") as connection:
        connection.execute("create temporary table stray as select * from marts.fct_sales limit 1")
        connection.execute(
            "update stray set order_item_id = -1, ordered_on = '2033-03-03'; insert into marts.fct_sales table stray"
        )
        assert connection.execute("select count(*) from marts.fct_sales_default").fetchone() == (1,)
    project.build()
    assert project.rows("warehouse", "select count(*) from marts.fct_sales_default") == [(0,)]
    assert project.rows("warehouse", "select order_item_id from marts.fct_sales_2033_03") == [(-1,)]
    project.build("--full-refresh", "--select", "marts")
    assert_as_a_full_build_has_them(project)


@pytest.mark.long
def test_a_developer_builds_what_changed_in_schemas_of_their_own(project):
    own = {"DBT_SCHEMA_PREFIX": "ana_"}
    good = project.root / ".meltano" / "dbt" / "good"
    with edited(project, "models/marts/dim_products.sql", ("sku,\n", "upper(sku) as sku,\n")):
        changed = ("build", "--select", "state:modified+", "--defer", "--state", str(good), "--resource-type", "model")
        done = project.dbt(*changed, env=own)
        assert done.returncode == 0, done.stdout
    found = project.rows(
        "warehouse",
        "select relname from pg_class where relnamespace = 'ana_marts'::regnamespace and relkind in ('r', 'm')",
    )
    assert {name for (name,) in found if not name.startswith("_")} == {"dim_products", "mart_daily_sales"}
    assert_as_a_full_build_has_them(project)
