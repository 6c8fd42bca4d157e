"""The marts: what a build writes, what stands on them meanwhile, and that any way to them ends in the same rows."""

from __future__ import annotations

import re
import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest

from tests.integration.conftest import make_built

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.integration.conftest import Checkout

KEPT = ("dim_customers", "dim_products", "dim_dates", "dim_customers_history", "fct_orders", "fct_sales")
WRITTEN = re.compile(r"marts\.(\w+) \.* ?\[(\d+) new, (\d+) changed, (\d+) gone in")
UNKNOWN = "00000000-0000-0000-0000-000000000000"


@pytest.fixture(scope="module")
def project() -> Iterator[Checkout]:
    """A project that was loaded and built. Each test leaves it built."""
    yield from make_built()


def written(printed: str) -> dict[str, tuple[int, int, int]]:
    """Return how many rows of each mart a build inserted, updated and deleted."""
    return {name: (int(new), int(changed), int(gone)) for name, new, changed, gone in WRITTEN.findall(printed)}


def assert_as_a_full_build_has_them(project: Checkout) -> None:
    """Build all again: a full refresh writes what differs, so that nothing does if it writes nothing."""
    before = {
        name: project.rows("warehouse", f"select md5(string_agg(t::text, '' order by t::text)) from marts.{name} t")
        for name in KEPT
    }
    assert written(project.build("--full-refresh", "--select", "marts")) == dict.fromkeys(KEPT, (0, 0, 0))
    after = {
        name: project.rows("warehouse", f"select md5(string_agg(t::text, '' order by t::text)) from marts.{name} t")
        for name in KEPT
    }
    assert after == before
    # and not by comparing with itself alone
    assert project.rows("warehouse", FACTS_THAT_DIFFER) == []


FACTS_THAT_DIFFER = """
    with fact as (select order_item_id, order_id, customer_key, order_status, ordered_on, revenue from marts.fct_sales),
    view as (
        select order_item_id, order_id, customer_key, order_status, ordered_on, revenue
        from intermediate.int_order_items_enriched
    )
    (table fact except table view) union all (table view except table fact)
"""


def test_a_build_writes_what_changed_and_an_idle_one_nothing(project):
    assert written(project.build()) == dict.fromkeys(KEPT, (0, 0, 0))
    project.tidemark("demo", "change", "--rows", "100", "--seed", "3")
    project.extract_and_load()
    counts = written(project.build())
    assert counts["dim_products"][1] == 3
    assert counts["fct_orders"][0] == 15
    assert 0 < counts["fct_sales"][0] <= 45
    assert counts["dim_dates"] == (0, 0, 0)
    assert_as_a_full_build_has_them(project)


@pytest.mark.long
def test_rows_deleted_in_the_shop_leave_the_facts_and_come_back(project):
    with project.connect("warehouse") as connection:
        connection.execute(delete("order_items", "order_id = 11"))
        connection.execute(delete("orders", "order_id in (11, 12)"))
    counts = written(project.build())
    assert counts["fct_orders"][2] == 2
    assert project.rows("warehouse", "select count(*) from marts.fct_sales where order_id = 11") == [(0,)]
    # its lines are there, and wait for an order
    assert project.rows(
        "warehouse", "select distinct order_status, customer_key::text from marts.fct_sales where order_id = 12"
    ) == [("unknown", UNKNOWN)]
    with project.connect("warehouse") as connection:
        connection.execute(undelete("order_items", "order_id = 11"))
        connection.execute(undelete("orders", "order_id in (11, 12)"))
    assert written(project.build())["fct_orders"][0] == 2
    assert project.rows(
        "warehouse", "select order_status <> 'unknown' from marts.fct_sales where order_id = 12 limit 1"
    ) == [(True,)]
    assert_as_a_full_build_has_them(project)


def delete(table: str, where: str) -> str:
    """Return what a reconcile does to rows that are gone."""
    return f"update raw.{table} set _sdc_deleted_at = now(), _tidemark_loaded_xid = pg_current_xact_id() where {where}"


def undelete(table: str, where: str) -> str:
    return f"update raw.{table} set _sdc_deleted_at = null, _tidemark_loaded_xid = pg_current_xact_id() where {where}"


def load(table: str, change: str, where: str) -> str:
    """Return what a load does to rows that changed."""
    return f"update raw.{table} set {change}, _tidemark_loaded_xid = pg_current_xact_id() where {where}"


def test_a_line_that_moves_to_another_order_changes_both_and_their_customers(project):
    with project.connect("warehouse") as connection:
        ((line, old, new),) = connection.execute(
            "select a.order_item_id, a.order_id, b.order_id from raw.order_items a, raw.orders b, raw.orders o "
            "where o.order_id = a.order_id and b.customer_id <> o.customer_id and b.order_id > 100 "
            "and date_trunc('month', b.ordered_at) <> date_trunc('month', o.ordered_at) limit 1"
        ).fetchall()
        connection.execute(load("order_items", f"order_id = {new}", f"order_item_id = {line}"))
    counts = written(project.build())
    # to another month's partition
    assert counts["fct_sales"] == (1, 0, 0)
    assert counts["fct_orders"] == (0, 2, 0)
    assert counts["dim_customers"] == (0, 2, 0)
    assert_as_a_full_build_has_them(project)
    with project.connect("warehouse") as connection:
        connection.execute(load("order_items", f"order_id = {old}", f"order_item_id = {line}"))
    project.build()


@pytest.mark.long
def test_an_order_that_gets_another_customer_changes_both(project):
    with project.connect("warehouse") as connection:
        ((order, old, new),) = connection.execute(
            "select order_id, customer_id, (select max(customer_id) from raw.customers) from raw.orders "
            "where cancelled_at is null limit 1"
        ).fetchall()
        connection.execute(load("orders", f"customer_id = {new}", f"order_id = {order}"))
    assert written(project.build())["dim_customers"] == (0, 2, 0)
    assert_as_a_full_build_has_them(project)
    with project.connect("warehouse") as connection:
        connection.execute(load("orders", f"customer_id = {old}", f"order_id = {order}"))
    project.build()


@pytest.mark.long
def test_a_sale_is_kept_without_its_product_and_customer_and_finds_them_when_they_arrive(project):
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
    project.build("--full-refresh")
    lines = f"select count(*), count(distinct product_key) from marts.fct_sales where product_id = {product}"
    ((before, keys),) = project.rows("warehouse", lines)
    assert (before > 0, keys) == (True, 1)
    assert project.rows("warehouse", f"{lines} and product_key <> '{UNKNOWN}'") == [(0, 0)]
    known = "select count(*) from marts.fct_sales inner join marts.dim_products using (product_key)"
    assert project.rows("warehouse", known) == project.rows("warehouse", "select count(*) from marts.fct_sales")
    with project.connect("warehouse") as connection:
        for table, place in (("products", "away"), ("customers", "gone")):
            connection.execute(f"update raw.{place} set _tidemark_loaded_xid = pg_current_xact_id()")
            connection.execute(f"insert into raw.{table} select * from raw.{place}; drop table raw.{place}")
    project.build()
    assert project.rows(
        "warehouse", f"select count(*) from marts.fct_sales where '{UNKNOWN}' in (product_key, customer_key)"
    ) == [(0,)]
    assert_as_a_full_build_has_them(project)


def test_a_chunk_that_commits_while_dbt_runs_is_in_the_next_build(project):
    with project.connect("warehouse") as loader:
        loader.autocommit = False
        loader.execute(load("orders", "shipping_fee = shipping_fee + 1", "order_id <= 20"))
        # rows of later transactions are committed before it, and built
        with project.connect("warehouse") as other:
            other.execute(load("orders", "shipping_fee = shipping_fee + 1", "order_id between 21 and 30"))
        assert written(project.build())["fct_orders"] == (0, 10, 0)
        loader.commit()
    assert written(project.build())["fct_orders"] == (0, 20, 0)
    assert_as_a_full_build_has_them(project)


@contextmanager
def reading(project: Checkout, query: str) -> Iterator[list[Any]]:
    """Read in a loop; yields what every reading returned, an error being one."""
    answers: list[Any] = []
    stop = threading.Event()

    def read() -> None:
        with project.connect("warehouse") as connection:
            while not stop.is_set():
                try:
                    answers.append(connection.execute(query).fetchone()[0])  # type: ignore[index]
                except Exception as error:  # noqa: BLE001
                    answers.append(error)
                time.sleep(0.005)

    reader = threading.Thread(target=read)
    reader.start()
    try:
        yield answers
    finally:
        stop.set()
        reader.join()


def test_what_stands_on_the_marts_survives_every_build_and_no_reader_finds_one_empty(project):
    views = "\n".join(
        f"create view analysis.{name} as select * from marts.{name};" for name in (*KEPT, "mart_daily_sales")
    )
    with project.connect("warehouse") as connection:
        connection.execute("create role analyst; create schema analysis;" + views)
        connection.execute("grant select on marts.fct_sales, marts.dim_customers, marts.mart_daily_sales to analyst")
        connection.execute(
            "create materialized view analysis.top as "
            "select country, sum(revenue) from analysis.mart_daily_sales group by 1"
        )
    oids = (
        "select array_agg(oid order by oid) from pg_class "
        "where relnamespace = 'marts'::regnamespace and not relispartition"
    )
    before = project.rows("warehouse", oids)
    smallest = (
        "select least("
        + ", ".join(f"(select count(*) from analysis.{name})" for name in (*KEPT, "mart_daily_sales"))
        + ")"
    )
    with reading(project, smallest) as answers:
        project.build("--full-refresh")
        project.tidemark("demo", "change", "--rows", "300", "--seed", "9")
        project.extract_and_load()
        project.build()
    assert len(answers) > 20
    assert [answer for answer in answers if not isinstance(answer, int) or answer == 0] == []
    assert project.rows("warehouse", oids) == before
    assert project.rows(
        "warehouse",
        "select has_table_privilege('analyst', 'marts.fct_sales', 'select'), "
        "has_table_privilege('analyst', 'marts.mart_daily_sales', 'select')",
    ) == [(True, True)]
    assert_as_a_full_build_has_them(project)


@pytest.mark.long
def test_a_new_months_partition_is_made_under_a_reader_that_holds_the_table(project):
    with project.connect("warehouse") as connection:
        connection.execute(load("orders", "ordered_at = '2031-05-06 12:00+00'", "order_id = 40"))
    with reading(project, "select count(*) from marts.fct_sales, pg_sleep(0.3)") as answers:
        project.build()
    assert all(isinstance(answer, int) for answer in answers)
    assert project.rows("warehouse", "select count(*) > 0 from marts.fct_sales_2031_05") == [(True,)]
    assert project.rows("warehouse", "select count(*) from marts.fct_sales_default") == [(0,)]
    assert_as_a_full_build_has_them(project)


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


def test_what_is_wrong_makes_the_right_test_fail_and_its_rows_are_kept(project):
    with project.connect("warehouse") as connection:
        connection.execute(load("order_items", "order_id = 999999", "order_item_id = 5"))
        connection.execute("create temporary table twin as select * from marts.fct_sales where order_item_id = 7")
        connection.execute("update twin set ordered_on = '2032-02-02'; insert into marts.fct_sales table twin")
        connection.execute("update marts.fct_orders set revenue = revenue + 0.01 where order_id = 9")
        connection.execute(
            "update raw._tidemark_runs set ended_at = now() - interval '4 days' where table_name = 'products'"
        )
        # what a test that is no more found 31 days ago, and what somebody else keeps there
        connection.execute("set role tidemark_transformer")
        connection.execute("create schema if not exists test_failures")
        for name, days, note in (("forgotten", 31, "failed at"), ("recent", 29, "failed at"), ("notes", 31, "seen at")):
            connection.execute(f"create table test_failures.{name} ()")
            connection.execute(
                f"do $$ begin execute format('comment on table test_failures.{name} is %L', "
                f"'{note} ' || (now() - interval '{days} days')); end $$"
            )
        connection.execute("reset role")
        connection.execute("create table test_failures.theirs ()")
        connection.execute("comment on table test_failures.theirs is 'failed at 2020-01-01'")
    tested = project.dbt("test", "--select", "stg_order_items", "fct_sales", "orders_agree_with_their_lines")
    failures = [
        "a_sale_has_one_version_of_its_customer",
        "belongs_to_stg_order_items_order_id",
        "orders_agree_with_their_lines",
        "unique_fct_sales_order_item_id",
    ]
    assert tested.returncode == 1
    assert re.findall(r"FAIL \d+ (\w+?)(?:__\w*)? [ .\[]", tested.stdout) == unordered(failures), tested.stdout
    kept = "select tablename from pg_tables where schemaname = 'test_failures'"
    assert [name[:20] for (name,) in project.rows("warehouse", kept)] == unordered(
        [name[:20] for name in [*failures, "recent", "notes", "theirs"]]
    )
    fresh = project.dbt("source", "freshness", "--select", "source:raw.products", "source:raw.orders")
    assert "ERROR STALE freshness of raw.products" in fresh.stdout
    assert "PASS freshness of raw.orders" in fresh.stdout

    with project.connect("warehouse") as connection:
        connection.execute(
            "update raw.order_items i set order_id = f.order_id, _tidemark_loaded_xid = pg_current_xact_id() "
            "from marts.fct_sales f where f.order_item_id = i.order_item_id and i.order_id = 999999"
        )
        connection.execute("update raw._tidemark_runs set ended_at = now() where table_name = 'products'")
    # which also mends what somebody else wrote
    assert written(project.build("--full-refresh", "--select", "marts"))["fct_sales"] == (0, 0, 1)
    assert (
        project.dbt("test", "--select", "stg_order_items", "fct_sales", "orders_agree_with_their_lines").returncode == 0
    )
    assert project.rows("warehouse", kept) == unordered([("recent",), ("notes",), ("theirs",)])


@pytest.mark.long
def test_the_log_of_model_runs_reaches_back_90_days(project):
    log = "select count(*) from marts._tidemark_model_runs where run_id in ('at 91 days', 'at 89 days')"
    with project.connect("warehouse") as connection:
        connection.execute(
            "insert into marts._tidemark_model_runs (run_id, invocation_id, model, outcome, started_at, seconds) "
            "select 'at ' || days || ' days', gen_random_uuid()::text, 'old', 'success', "
            "now() - make_interval(days => days), 1 "
            "from unnest('{89, 91}'::int[]) as days"
        )
    assert project.rows("warehouse", log) == [(2,)]
    project.build("--select", "dim_dates")
    assert project.rows("warehouse", log) == [(1,)]


def unordered(names: list[str]) -> Any:
    """Return what equals a list of the same names in any order."""

    class Unordered(list[str]):
        def __eq__(self, other: object) -> bool:
            return sorted(self) == sorted(other)  # type: ignore[call-overload]

        __hash__ = None  # type: ignore[assignment]

    return Unordered(names)
