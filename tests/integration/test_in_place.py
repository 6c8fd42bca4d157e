"""Changes that an in-place table refuses, applies and ignores."""

from __future__ import annotations

import re
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from tests import autovacuum
from tests.integration.marts import BY_KEY, assert_as_a_full_build_has_them, keys, load, written
from tests.integration.stages import make_checkout

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.integration.checkout import Checkout


@pytest.fixture(scope="module")
def project() -> Iterator[Checkout]:
    yield from make_checkout(stage="built")


@contextmanager
def edited(project: Checkout, path: str, *changes: tuple[str, str]) -> Iterator[None]:
    """Change a file of the shop's models temporarily."""
    file = project.shop / path
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
    """Run a build that must be refused; return dbt's output."""
    done = project.dbt("run", "--select", *arguments)
    assert done.returncode == 1, done.stdout
    return done.stdout


def test_a_wrong_type_a_second_key_and_a_stray_column_are_refused_before_anything_is_written(project):
    wrong = (
        "- name: price\n        data_type: numeric(12, 2)",
        "- name: price\n        data_type: text",
    )
    column = ("select * from final\n", "select *, 1 as stray from final\n")
    described = ("    columns:\n", "    columns:\n      - {name: stray, data_type: integer, description: x}\n")
    twice = ("select * from final\n", "select * from final union all table final\n")
    with (
        edited(project, "models/marts/dim_products.yml", wrong),
        edited(project, "models/marts/dim_customers_history.sql", column),
        edited(project, "models/marts/dim_customers_history.yml", described),
        edited(project, "models/marts/dim_dates.sql", twice),
    ):
        said = refused(project, "dim_products", "dim_customers_history", "dim_dates")
    assert "This model has an enforced contract that failed" in said
    assert re.search(r"price +\| DECIMAL +\| TEXT", said), said
    assert "the model gives 2 row(s) with date_day = (20" in said
    assert 'dim_customers_history" lacks stray (integer). Run it once with --full-refresh' in said
    assert_as_a_full_build_has_them(project)


def test_a_first_build_makes_keys_from_the_finished_rows_with_all_that_the_contract_says_of_them(project):
    more = (
        "    columns:\n",
        (
            "    constraints:\n"
            "      - {type: unique, expression: 'nulls not distinct', columns: [date_day]}\n"
            "      - {type: custom, expression: 'unique (year, date_day) with (fillfactor = 50)'}\n"
            "    columns:\n"
        ),
    )
    shuffled = ("select * from final\n", "select * from final order by md5(date_day::text)\n")
    with (
        edited(project, "models/marts/dim_dates.yml", more),
        edited(project, "models/marts/dim_dates.sql", shuffled),
    ):
        project.build("--select", "dim_dates", env={"DBT_SCHEMA_PREFIX": "first_"})
    constraints = (
        "select conname, pg_get_constraintdef(pg_constraint.oid), reloptions from pg_constraint "
        "join pg_class on pg_class.oid = conindid where conrelid = 'first_marts.dim_dates'::regclass order by conname"
    )
    assert project.rows("warehouse", constraints) == [
        ("dim_dates_date_day_key", "UNIQUE NULLS NOT DISTINCT (date_day)", None),
        ("dim_dates_pkey", "PRIMARY KEY (date_day)", None),
        ("dim_dates_year_date_day_key", "UNIQUE (year, date_day)", ["fillfactor=50"]),
    ]
    # an index into which rows went in any order has half-empty pages
    with project.connect("warehouse") as connection:
        size = "select pg_relation_size('first_marts.dim_dates_pkey')"
        first = connection.execute(size).fetchone()
        connection.execute("reindex index first_marts.dim_dates_pkey")
        assert connection.execute(size).fetchone() == first


CHANGED_CONTRACT = (
    (
        "      - name: shipping_fee\n        data_type: numeric(12, 2)\n",
        (
            "      - name: half\n        data_type: numeric(12, 2)\n        description: x\n"
            "        constraints: [{type: not_null}, {type: check, expression: half >= 0}]\n"
            "      - name: shipping_fee\n        data_type: numeric(14, 4)\n"
        ),
    ),
    ("    columns:\n", "    constraints: [{type: unique, columns: [order_status, order_id]}]\n    columns:\n"),
)
HALF = ("        orders.shipping_fee,\n", "        orders.shipping_fee,\n        orders.shipping_fee / 2 as half,\n")
SHAPE = (
    "select attname, format_type(atttypid, atttypmod), attnotnull from pg_attribute "
    "where attrelid = 'marts.fct_orders'::regclass and attname in ('shipping_fee', 'half') order by 1 desc"
)
CONSTRAINTS = (
    "select pg_get_constraintdef(oid) from pg_constraint where conrelid = 'marts.fct_orders'::regclass "
    "and contype in ('c', 'u') order by 1"
)


@pytest.mark.long
def test_columns_types_and_constraints_are_altered_in_place_if_asked(project):
    with project.connect("warehouse") as connection:
        connection.execute("create view public.late as select order_id, days_to_ship from marts.fct_orders")
    with (
        edited(project, "models/marts/fct_orders.sql", HALF),
        edited(project, "models/marts/fct_orders.yml", *CHANGED_CONTRACT),
    ):
        said = refused(project, "fct_orders")
        assert (
            'fct_orders" lacks half (numeric(12,2)); '
            "has shipping_fee as numeric(12,2), the model as numeric(14,4); "
            "lacks CHECK ((half >= (0)::numeric)); lacks UNIQUE (order_status, order_id). "
            "Run it once with --full-refresh"
        ) in said
        with edited(project, "models/marts/fct_orders.yml", ("half >= 0", "half > 1000000")):
            said = refused(project, "fct_orders", "--full-refresh")
        assert "violates check constraint" in said
        # nothing was changed, because rows violate it
        assert project.rows("warehouse", SHAPE) == [("shipping_fee", "numeric(12,2)", True)]
        project.build("--select", "fct_orders", "--full-refresh")
        assert project.rows("warehouse", SHAPE) == [
            ("shipping_fee", "numeric(14,4)", True),
            ("half", "numeric(12,2)", True),
        ]
        assert project.rows("warehouse", CONSTRAINTS) == [
            ("CHECK ((half >= (0)::numeric))",),
            ("UNIQUE (order_status, order_id)",),
        ]
        # now an incremental build finds that everything matches the contract
        assert written(project.build("--select", "fct_orders"))["fct_orders"] == (0, 0, 0)
    assert "has half (numeric(12,2)), which the model lacks" in refused(project, "fct_orders")
    project.build("--select", "fct_orders", "--full-refresh")
    assert project.rows("warehouse", SHAPE) == [("shipping_fee", "numeric(12,2)", True)]
    assert project.rows("warehouse", CONSTRAINTS) == []
    assert project.rows("warehouse", "select count(*) > 0 from public.late") == [(True,)]
    assert_as_a_full_build_has_them(project)


@pytest.mark.long
def test_the_next_build_updates_the_comment_of_a_changed_description(project):
    comments = (
        "select obj_description(oid), col_description(oid, 1) from pg_class "
        "where relnamespace = 'marts'::regnamespace and relname in ('dim_products', 'mart_daily_sales') "
        "order by relname"
    )
    with (
        edited(
            project,
            "models/marts/dim_products.yml",
            ("description: One row per product", "description: A row per product"),
        ),
        edited(project, "models/marts/mart_daily_sales.yml", ("Day (UTC) of the sales.", "Day of the sales, in UTC.")),
    ):
        project.build("--select", "dim_products", "mart_daily_sales")
    ((product, _), (mart, day)) = project.rows("warehouse", comments)
    assert product.startswith("A row per product")
    assert mart.startswith("One row per day")
    assert day == "Day of the sales, in UTC."
    project.build("--select", "dim_products", "mart_daily_sales")
    assert project.rows("warehouse", comments)[0][0].startswith("One row per product")


@pytest.mark.long
def test_new_columns_are_appended_and_grants_applied_if_the_model_says_so(project):
    with project.connect("warehouse") as connection:
        connection.execute("create role analyst; create role intern; grant select on marts.dim_products to intern")
    plain = "null_keys='product_id',\n"
    configured = (
        f"{plain} on_schema_change='append_new_columns', contract={{'enforced': false}}, "
        "grants={'select': ['analyst']},\n"
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
        # a changed SELECT computes all rows, so that each row has a value
        assert project.rows("warehouse", "select count(*) from marts.dim_products where one is null") == [(0,)]
        assert project.rows("warehouse", allowed) == [("analyst",)]
    with edited(project, "models/marts/dim_products.sql", (plain, configured)):
        project.build("--select", "dim_products")
        # a column that the model dropped stays
        assert project.rows("warehouse", "select count(*) > 0 from marts.dim_products where one = 1") == [(True,)]
    project.build("--select", "dim_products", "--full-refresh")
    assert_as_a_full_build_has_them(project)


@pytest.mark.long
def test_a_table_that_others_keep_locked_does_not_change_and_the_build_names_them(project):
    patient = '{"in_place_lock_attempts": 2, "in_place_lock_timeout": "50ms"}'
    index = ("null_keys='product_id',\n", "null_keys='product_id', indexes=[{'columns': ['sku']}],\n")
    with (
        edited(project, "models/marts/dim_products.sql", index),
        project.connect("warehouse") as writer,
        writer.transaction(),
    ):
        writer.execute("lock table marts.dim_products in row exclusive mode")
        pid = writer.info.backend_pid
        said = refused(project, "dim_products", "--vars", patient)
    assert "could not be altered: other sessions held a lock on it in each of 2 attempts" in said
    assert f"pid {pid} (" in said
    assert_as_a_full_build_has_them(project)


@pytest.mark.long
def test_a_prepared_transaction_that_keeps_a_table_locked_is_named(project):
    with project.connect("warehouse") as connection:
        connection.execute("alter system set max_prepared_transactions = 1")
    project.tidemark("down")
    project.tidemark("up")
    index = ("null_keys='product_id',\n", "null_keys='product_id', indexes=[{'columns': ['sku']}],\n")
    with project.connect("warehouse") as connection, edited(project, "models/marts/dim_products.sql", index):
        connection.execute("alter system reset max_prepared_transactions")
        connection.execute(
            "begin; lock table marts.dim_products in row exclusive mode; prepare transaction 'transfer 7'"
        )
        try:
            said = refused(project, "dim_products", "--vars", '{"in_place_lock_attempts": 2}')
        finally:
            connection.execute("rollback prepared 'transfer 7'")
    assert "in each of 2 attempts: the prepared transaction transfer 7" in said


def test_autovacuum_of_a_large_table_gives_way_to_a_build_that_alters_it(project):
    index = ("unique_key='date_day'", "unique_key='date_day', indexes=[{'columns': ['year']}]")
    with project.connect("warehouse") as connection:
        connection.execute("update marts.dim_dates set year = year")
    with (
        edited(project, "models/marts/dim_dates.sql", index),
        autovacuum.at_work(lambda: project.connect("warehouse"), "marts.dim_dates"),
    ):
        project.build("--select", "dim_dates", "--vars", '{"in_place_lock_attempts": 2}')
    indexed = "select count(*) from pg_indexes where schemaname || tablename = 'martsdim_dates' and indexdef ~ 'year'"
    assert project.rows("warehouse", indexed) == [(1,)]


@pytest.mark.long
def test_a_relation_of_another_kind_is_never_dropped_and_unsupported_settings_are_refused(project):
    with project.connect("warehouse") as connection:
        connection.execute(
            "alter table marts.dim_dates rename to dim_dates_; create view marts.dim_dates as select 1 as x;"
            "alter view intermediate.int_order_items_enriched rename to items; "
            "create table intermediate.int_order_items_enriched (x text)"
        )
    ignoring = (
        "unique_key=['customer_id', 'version']",
        "unique_key=['customer_id', 'version'], on_schema_change='ignore'",
    )
    related = (
        "constraints: [{type: not_null}, {type: primary_key}]",
        "constraints: [{type: primary_key}, {type: foreign_key, expression: 'raw.orders (order_id)'}]",
    )
    with (
        edited(project, "models/marts/dim_customers_history.sql", ignoring),
        edited(project, "models/marts/dim_products.yml", related),
    ):
        said = refused(project, "dim_dates", "int_order_items_enriched", "dim_customers_history", "dim_products")
    assert 'dim_dates" is a view and the model makes a plain table' in said
    assert 'int_order_items_enriched" is a plain table and the model makes a view' in said
    assert "on_schema_change is ignore; an in-place table takes fail or append_new_columns" in said
    assert 'dim_products" has a foreign_key in its contract' in said
    with project.connect("warehouse") as connection:
        connection.execute(
            "drop view marts.dim_dates; alter table marts.dim_dates_ rename to dim_dates;"
            "drop table intermediate.int_order_items_enriched; "
            "alter view intermediate.items rename to int_order_items_enriched"
        )
    assert_as_a_full_build_has_them(project)


@pytest.mark.long
def test_a_warehouse_restored_into_another_cluster_is_built_in_full_once(project):
    with project.connect("warehouse") as connection:
        # another cluster numbers its transactions anew: these numbers are far ahead of its own
        for schema in ("intermediate", "marts"):
            connection.execute(f"update {schema}._tidemark_models set horizon = '999999999', cluster = 'another'")
        for schema in ("raw", "intermediate", "marts"):
            connection.execute(
                f"update {schema}._tidemark_tracked set cluster = 'another', trimmed = '999999998', "
                "columns = (select jsonb_object_agg(name, '999999999') from jsonb_object_keys(columns) name)"
            )
            # one that is older than the log may be, and one that is not
            connection.execute(
                f"insert into {schema}._tidemark_changes (model, xid, logged_at) select model, '999999999', "
                f"now() - make_interval(days => age) from {schema}._tidemark_tracked, unnest(array[6, 60]) age"
            )
        connection.execute(load("orders", "shipping_fee = shipping_fee + 1", "order_id = 50"))
    printed = project.build()
    assert set(keys(printed)) & set(BY_KEY) == set()
    assert written(printed)["fct_orders"] == (0, 1, 0)
    assert_as_a_full_build_has_them(project)
    assert keys(project.build()) == dict.fromkeys(BY_KEY, 0), "and only once"
    with project.connect("warehouse") as connection:
        # nothing of the other cluster is left to be trimmed later
        for schema in ("raw", "intermediate", "marts"):
            found = connection.execute(
                f"select (select count(*) from {schema}._tidemark_changes where xid = '999999999'), "
                f"(select count(*) from {schema}._tidemark_tracked where trimmed > '999999' or cluster = 'another')"
            )
            assert found.fetchone() == (0, 0), schema


LOGGED = "select count(*) from {}._tidemark_changes"


@pytest.mark.long
def test_changes_that_every_model_has_read_are_deleted_and_the_rest_are_kept(project):
    project.build()
    with project.connect("warehouse") as connection:
        connection.execute(load("orders", "shipping_fee = shipping_fee + 1", "order_id between 70 and 79"))
    project.build("--select", "fct_orders")
    # mart_customer_lifetime has not read them
    project.build("--select", "dim_dates")
    assert project.rows("warehouse", f"{LOGGED.format('marts')} where model = 'fct_orders'") == [(10,)]
    assert keys(project.build("--select", "mart_customer_lifetime"))["mart_customer_lifetime"] > 0
    project.build()
    project.build()
    assert project.rows("warehouse", LOGGED.format("marts")) == [(0,)]
    assert_as_a_full_build_has_them(project)
