"""The marts: a build writes only changes, dependents stay, and every way to build them ends with the same rows."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest

from tests.integration.marts import (
    BY_KEY,
    IN_PLACE,
    UNKNOWN,
    UNSOLD,
    assert_as_a_full_build_has_them,
    delete,
    keys,
    load,
    reading,
    undelete,
    written,
)
from tests.integration.stages import make_checkout

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.integration.checkout import Checkout


@pytest.fixture(scope="module")
def project() -> Iterator[Checkout]:
    """A loaded and built project. Each test leaves it built."""
    yield from make_checkout(stage="built")


def build_tables(project: Checkout) -> dict[str, tuple[int, int, int]]:
    """Build everything except views, which did not change; return how many rows of each mart it wrote."""
    return written(project.build("--exclude", "config.materialized:in_place_view"))


@dataclass(frozen=True)
class Builds:
    """What an idle build and one of a day's changes printed, and what others had of the marts before and after them."""

    idle: str
    changed: str
    answers: list[Any]
    oids: list[Any]


OIDS = (
    "select array_agg(oid order by oid) from pg_class where relnamespace = 'marts'::regnamespace and not relispartition"
)


@pytest.fixture(scope="module")
def builds(project: Checkout) -> Builds:
    """An idle build, one of a day's changes and a full one, with views on each mart and a reader of these."""
    read = (*IN_PLACE, "mart_monthly_sales")
    views = "\n".join(f"create view analysis.{name} as select * from marts.{name};" for name in read)
    with project.connect("warehouse") as connection:
        connection.execute("create role analyst; create schema analysis;" + views)
        connection.execute("grant select on marts.fct_sales, marts.dim_customers, marts.mart_monthly_sales to analyst")
        connection.execute(
            "create materialized view analysis.top as "
            "select country, sum(revenue) from analysis.mart_monthly_sales group by 1"
        )
    before = project.rows("warehouse", OIDS)
    smallest = ", ".join(f"(select count(*) from analysis.{name})" for name in read)
    with reading(project, f"select least({smallest})") as answers:
        idle = project.build()
        project.tidemark("demo", "change", "--rows", "100", "--seed", "3")
        project.extract_and_load()
        changed = project.build()
        assert_as_a_full_build_has_them(project)
    return Builds(idle, changed, answers, before)


def test_a_build_writes_what_changed_and_an_idle_one_nothing(builds):
    assert written(builds.idle) == dict.fromkeys(IN_PLACE, (0, 0, 0))
    assert keys(builds.idle) == dict.fromkeys(BY_KEY, 0)
    assert "compares all of its rows" not in builds.idle
    assert re.search(r"marts\.mart_monthly_sales \W*\[nothing below it changed in", builds.idle), builds.idle
    assert set(keys(builds.changed)) == set(BY_KEY), "no model computed all of its rows"
    counts = written(builds.changed)
    assert counts["dim_products"][1] == 3
    assert counts["fct_orders"][0] == 15
    assert 0 < counts["fct_sales"][0] <= 45
    assert counts["dim_dates"] == (0, 0, 0)


def test_dependents_of_the_marts_survive_every_build_and_no_reader_finds_a_mart_empty(project, builds):
    assert len(builds.answers) > 20
    assert [answer for answer in builds.answers if not isinstance(answer, int) or answer == 0] == []
    assert project.rows("warehouse", OIDS) == builds.oids
    assert project.rows(
        "warehouse",
        "select has_table_privilege('analyst', 'marts.fct_sales', 'select'), "
        "has_table_privilege('analyst', 'marts.mart_monthly_sales', 'select')",
    ) == [(True, True)]


@pytest.mark.long
def test_rows_deleted_in_the_shop_leave_the_facts_and_come_back(project):
    with project.connect("warehouse") as connection:
        connection.execute(delete("order_items", "order_id = 11"))
        connection.execute(delete("orders", "order_id in (11, 12)"))
    counts = build_tables(project)
    assert counts["fct_orders"][2] == 2
    assert project.rows("warehouse", "select count(*) from marts.fct_sales where order_id = 11") == [(0,)]
    # the other order's lines stay until they are found deleted too; they are not sales
    assert project.rows(
        "warehouse", "select distinct order_status, is_cancelled from marts.fct_sales where order_id = 12"
    ) == [("deleted", True)]
    assert project.rows("warehouse", UNSOLD) == [(0,)]
    with project.connect("warehouse") as connection:
        connection.execute(undelete("order_items", "order_id = 11"))
        connection.execute(undelete("orders", "order_id in (11, 12)"))
    assert build_tables(project)["fct_orders"][0] == 2
    assert project.rows(
        "warehouse",
        "select order_status not in ('unknown', 'deleted') from marts.fct_sales where order_id = 12 limit 1",
    ) == [(True,)]
    assert_as_a_full_build_has_them(project)


@pytest.mark.long
def test_a_line_that_moves_to_another_order_changes_both_and_their_customers(project):
    with project.connect("warehouse") as connection:
        ((line, new),) = connection.execute(
            "select a.order_item_id, b.order_id from raw.order_items a, raw.orders b, raw.orders o "
            "where o.order_id = a.order_id and b.customer_id <> o.customer_id and b.order_id > 100 "
            "and date_trunc('month', b.ordered_at) <> date_trunc('month', o.ordered_at) limit 1"
        ).fetchall()
        connection.execute(load("order_items", f"order_id = {new}", f"order_item_id = {line}"))
    printed = project.build("--exclude", "config.materialized:in_place_view")
    assert keys(printed)["fct_sales"] == 1
    assert keys(printed)["fct_orders"] == 2, "the order that it left, and the one that it came to"
    counts = written(printed)
    # into another month's partition
    assert counts["fct_sales"] == (0, 1, 0)
    assert counts["fct_orders"] == (0, 2, 0)
    assert counts["mart_customer_lifetime"] == (0, 2, 0)
    assert_as_a_full_build_has_them(project)


@pytest.mark.long
def test_an_order_that_gets_another_customer_changes_both(project):
    with project.connect("warehouse") as connection:
        ((order, old, new),) = connection.execute(
            "select order_id, customer_id, (select max(customer_id) from raw.customers) from raw.orders "
            "where cancelled_at is null limit 1"
        ).fetchall()
        connection.execute(load("orders", f"customer_id = {new}", f"order_id = {order}"))
    assert build_tables(project)["mart_customer_lifetime"] == (0, 2, 0)
    assert_as_a_full_build_has_them(project)
    with project.connect("warehouse") as connection:
        connection.execute(load("orders", f"customer_id = {old}", f"order_id = {order}"))
    build_tables(project)


@pytest.mark.long
def test_a_sale_is_kept_without_its_product_and_customer_and_gets_them_when_they_arrive(project):
    with project.connect("warehouse") as connection:
        ((product, customer),) = connection.execute(
            "select product_id, customer_id from marts.fct_sales order by order_item_id limit 1"
        ).fetchall()
        connection.execute("create table raw.away as table raw.products with no data")
        connection.execute(
            f"with gone as (delete from raw.products where product_id = {product} returning *) "
            "insert into raw.away select * from gone"
        )
        connection.execute("create table raw.gone as table raw.customers with no data")
        connection.execute(
            f"with gone as (delete from raw.customers where customer_id = {customer} returning *) "
            "insert into raw.gone select * from gone"
        )
        connection.execute(load("orders", "shipping_fee = shipping_fee", "true"))
    project.build()
    lines = f"select count(*), count(distinct product_key) from marts.fct_sales where product_id = {product}"
    ((before, distinct),) = project.rows("warehouse", lines)
    assert (before > 0, distinct) == (True, 1)
    assert project.rows("warehouse", f"{lines} and product_key <> '{UNKNOWN}'") == [(0, 0)]
    known = "select count(*) from marts.fct_sales inner join marts.dim_products using (product_key)"
    assert project.rows("warehouse", known) == project.rows("warehouse", "select count(*) from marts.fct_sales")
    with project.connect("warehouse") as connection:
        for table, place in (("products", "away"), ("customers", "gone")):
            connection.execute(f"update raw.{place} set _tidemark_loaded_xid = pg_current_xact_id()")
            connection.execute(f"insert into raw.{table} select * from raw.{place}; drop table raw.{place}")
    build_tables(project)
    assert project.rows(
        "warehouse", f"select count(*) from marts.fct_sales where '{UNKNOWN}' in (product_key, customer_key)"
    ) == [(0,)]
    assert_as_a_full_build_has_them(project)


def test_a_chunk_that_commits_while_dbt_runs_is_in_the_next_build(project):
    with project.connect("warehouse") as loader:
        loader.autocommit = False
        loader.execute(load("orders", "shipping_fee = shipping_fee + 1", "order_id <= 20"))
        # rows of later transactions commit before it, and are built
        with project.connect("warehouse") as other:
            other.execute(load("orders", "shipping_fee = shipping_fee + 1", "order_id between 21 and 30"))
        assert written(project.build("--select", "fct_orders"))["fct_orders"] == (0, 10, 0)
        loader.commit()
    assert written(project.build("--select", "fct_orders"))["fct_orders"] == (0, 20, 0)


@pytest.mark.long
def test_a_new_months_partition_is_made_under_a_reader_that_holds_the_table(project):
    with project.connect("warehouse") as connection:
        connection.execute(load("orders", "ordered_at = '2031-05-06 12:00+00'", "order_id = 40"))
    with reading(project, "select count(*) from marts.fct_sales, pg_sleep(0.3)") as answers:
        build_tables(project)
    assert all(isinstance(answer, int) for answer in answers)
    assert project.rows("warehouse", "select count(*) > 0 from marts.fct_sales_2031_05") == [(True,)]
    assert project.rows("warehouse", "select count(*) from marts.fct_sales_default") == [(0,)]
    assert_as_a_full_build_has_them(project)


@pytest.mark.long
def test_a_load_during_a_build_and_restored_rows_fail_no_test(project):
    with project.connect("warehouse") as connection:
        connection.execute(delete("customers", "customer_id = 5"))
        # as a repair loads rows that changed without a stamp
        connection.execute(load("customers", "city = 'Elsewhere'", "customer_id = 6"))
        connection.execute(
            "create temporary table arrived as select * from raw.products limit 1; "
            "update arrived set product_id = 900001, sku = 'New', _tidemark_loaded_xid = pg_current_xact_id(); "
            "insert into raw.products table arrived"
        )
        ((line, old),) = connection.execute(
            "select order_item_id, product_id from marts.fct_sales where not is_cancelled limit 1"
        ).fetchall()
        connection.execute(load("order_items", "product_id = 900001", f"order_item_id = {line}"))
    # as if it had arrived between the dimensions and these
    project.build("--select", "customers_snapshot", "fct_sales", "mart_daily_sales")
    assert project.rows("warehouse", UNSOLD) == [(0,)]
    assert project.rows("warehouse", "select count(*) from marts.dim_products where product_id = 900001") == [(0,)]
    with project.connect("warehouse") as connection:
        connection.execute(undelete("customers", "customer_id = 5"))
    project.build("--select", "customers_snapshot", "dim_customers_history")
    tested = project.dbt(
        "test", "--indirect-selection", "eager", "--select", "customers_snapshot+", "fct_sales", "fct_orders"
    )
    assert tested.returncode == 0, tested.stdout
    versions = project.rows(
        "warehouse",
        "select customer_id, is_deleted, city = 'Elsewhere', valid_to > valid_from from marts.dim_customers_history "
        "where customer_id in (5, 6) order by customer_id, version",
    )
    assert versions == [
        (5, False, False, True),
        (5, True, False, True),
        (5, False, False, None),
        (6, False, False, True),
        (6, False, True, None),
    ]
    with project.connect("warehouse") as connection:
        connection.execute(load("order_items", f"product_id = {old}", f"order_item_id = {line}"))
    build_tables(project)


def test_the_dimensions_are_built_before_the_facts_that_look_up_their_keys(project):
    nodes = manifest(project)["nodes"]
    for fact, dimensions in {
        "fct_sales": ("dim_products", "dim_customers"),
        "fct_orders": ("dim_customers",),
    }.items():
        above = nodes[f"model.shop.{fact}"]["depends_on"]["nodes"]
        assert {f"model.shop.{name}" for name in dimensions} <= set(above)


def test_every_column_is_described(project):
    nodes = [*manifest(project)["nodes"].values(), *manifest(project)["sources"].values()]
    described = {
        (node["schema"], node.get("alias") or node["name"], column["name"])
        for node in nodes
        for column in node.get("columns", {}).values()
        if column["description"]
    }
    there = project.rows(
        "warehouse",
        "select nspname, relname, attname from pg_attribute inner join pg_class on pg_class.oid = attrelid "
        "inner join pg_namespace on pg_namespace.oid = relnamespace "
        "where nspname in ('raw', 'staging', 'intermediate', 'marts') and relkind in ('r', 'p', 'v', 'm') "
        "and not relispartition and attnum > 0 and not attisdropped "
        "and (relname !~ '^_tidemark' or relname = '_tidemark_runs')",
    )
    assert sorted(set(there) - described) == []


def manifest(project: Checkout) -> Any:
    """Return dbt's latest manifest."""
    return json.loads((project.root / ".meltano/dbt/target/manifest.json").read_text())
