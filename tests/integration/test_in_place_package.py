"""The dbt package in_place on its own: stock dbt builds its example project, without Tidemark's loader and wrapper."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from typing import TYPE_CHECKING

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict

from tests.conftest import REPOSITORY

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.integration.checkout import Checkout

pytestmark = pytest.mark.long
DBT = REPOSITORY / ".meltano" / "utilities" / "dbt-postgres" / "venv" / "bin" / "dbt"
BY_KEY = ("customers_by_key", "orders_by_key", "orders_history", "sales_by_month")
TABLES = ("fct_orders", "fct_orders_by_month", "dim_customers", "fct_large_orders", *BY_KEY)
NOTHING = dict.fromkeys(TABLES, (0, 0, 0))
WRITTEN = re.compile(r"model shop\.(\w+) .*\[(?:\d+ keys?: )?(\d+) new, (\d+) changed, (\d+) gone in")
KEYS = re.compile(r"model shop\.(\w+) .*\[(\d+) keys?: ")
# the transaction that wrote each row
ROWS = " union all ".join(f"select '{name}', xmin::text, t::text from {name} t" for name in (*TABLES, "statuses"))


@pytest.fixture
def server(started: Checkout) -> dict[str, str]:
    """A database of its own on a real server, as the variables of the example's profile."""
    with started.connect("warehouse") as connection:
        connection.execute("create database example")
    found = conninfo_to_dict(started.urls["warehouse"])
    return {
        "POSTGRES_HOST": str(found["host"]),
        "POSTGRES_PORT": str(found["port"]),
        "POSTGRES_USER": str(found["user"]),
        "DBT_ENV_SECRET_POSTGRES_PASS": str(found.get("password", "")),
        "POSTGRES_DATABASE": "example",
        "POSTGRES_SCHEMA": "shop",
    }


@pytest.fixture
def dbt(server: dict[str, str], tmp_path: Path) -> Callable[..., str]:
    """Run stock dbt in the example project of a copy of the package, which nothing surrounds."""
    package = tmp_path / "in_place"
    left_out = shutil.ignore_patterns("dbt_packages", "target", "logs")
    shutil.copytree(REPOSITORY / "transform" / "packages" / "in_place", package, ignore=left_out)
    env = {name: value for name, value in os.environ.items() if not name.startswith(("DBT_", "PG", "TIDEMARK_"))}

    def run(*arguments: str) -> str:
        done = subprocess.run(
            [DBT, "--no-use-colors", *arguments],
            cwd=package / "integration_tests",
            env={**env, **server},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    return run


@pytest.fixture
def rows(server: dict[str, str]) -> Callable[[str], list[tuple]]:
    def read(query: str) -> list[tuple]:
        with psycopg.connect(
            host=server["POSTGRES_HOST"],
            port=server["POSTGRES_PORT"],
            user=server["POSTGRES_USER"],
            password=server["DBT_ENV_SECRET_POSTGRES_PASS"],
            dbname=server["POSTGRES_DATABASE"],
            options="-c search_path=shop",
            autocommit=True,
        ) as connection:
            cursor = connection.execute(query)
            return cursor.fetchall() if cursor.description else []

    return read


def written(printed: str) -> dict[str, tuple[int, ...]]:
    """Return how many rows of each table a build inserted, updated and deleted."""
    return {name: tuple(map(int, counts)) for name, *counts in WRITTEN.findall(printed)}


def keys(printed: str) -> dict[str, int]:
    """Return how many keys a build evaluated of each table that it did not compute in full."""
    return {name: int(count) for name, count in KEYS.findall(printed)}


def test_the_package_alone_writes_what_changed_and_nothing_that_did_not(dbt, rows):
    dbt("deps")
    dbt("run-operation", "load_orders")
    dbt("build")
    rows("create schema analysis; create view analysis.large as select * from shop.fct_orders where amount > 500")
    snapshot = "select count(*), count(*) filter (where dbt_valid_to is null) from orders_snapshot"
    assert rows(snapshot) == [(1000, 1000)]
    before = sorted(rows(ROWS))

    printed = dbt("build")
    assert written(printed) == NOTHING
    assert keys(printed) == dict.fromkeys(BY_KEY, 0)
    assert re.search(r"seed file shop\.statuses \W*\[unchanged in", printed), printed
    assert re.search(r"model shop\.orders_per_day \W*\[nothing below it changed in", printed), printed
    assert sorted(rows(ROWS)) == before, "an idle build writes no row"
    assert rows(snapshot) == [(1000, 1000)]

    dbt("run-operation", "change_orders")
    printed = dbt("build")
    # customers 1 to 5; 5 orders, and the others of customers 1 and 5, who have one more and one less
    # three orders have another amount, one leaves its month and one opens another month
    assert keys(printed) == {"customers_by_key": 5, "orders_by_key": 44, "orders_history": 5, "sales_by_month": 4}
    assert written(printed) == {
        "fct_orders": (1, 3, 1),
        "fct_orders_by_month": (1, 3, 1),
        # customers 2 to 5
        "dim_customers": (0, 5, 0),
        "fct_large_orders": (0, 0, 0),
        "customers_by_key": (0, 5, 0),
        "orders_by_key": (1, 42, 1),
        "orders_history": (5, 4, 0),
        "sales_by_month": (1, 3, 0),
    }
    untouched = set(before) & set(rows(ROWS))
    assert len(before) - len(untouched) == 4 + 4 + 5 + 5 + 43 + 4 + 3
    assert rows(snapshot) == [(1005, 1001)]
    assert rows("select order_count from orders_per_day where ordered_on = '2026-07-01'") == [(1,)]

    # rows of raw that somebody deletes or edits by hand, without a new stamp
    rows("delete from shop_raw.orders where order_id = 10; update shop_raw.orders set amount = 0 where order_id = 20")
    printed = dbt("build", "--select", "stg_orders", "orders_by_key")
    assert written(printed) == {"orders_by_key": (0, 1, 1)}
    assert keys(printed) == {"orders_by_key": 2}
    dbt("build", "--full-refresh")

    # only a full build finds what somebody else changed, but the models above a table that logs edits follow it
    rows("update fct_orders set amount = 0 where order_id = 900; delete from fct_orders_by_month where order_id = 7")
    printed = dbt("build")
    follow = {"sales_by_month": (0, 1, 0), "customers_by_key": (0, 1, 0)}
    assert written(printed) | {"dim_customers": (0, 0, 0)} == {**NOTHING, **follow}
    assert written(dbt("build", "--full-refresh")) == {
        **NOTHING,
        **follow,
        "fct_orders": (0, 1, 0),
        "fct_orders_by_month": (1, 0, 0),
        "dim_customers": (0, 1, 0),
    }
    assert rows("select count(*) from analysis.large") == [(500,)], "what an analyst built on a table stays"


def test_settings_of_a_models_hooks_stay_in_force(dbt, rows, tmp_path):
    settings = {"random_page_cost": "3", "max_parallel_workers_per_gather": "5", "search_path": "shop, public"}
    model = tmp_path / "in_place" / "integration_tests" / "models" / "orders_by_key.sql"
    noted = "insert into shop.noted select " + ", ".join(f"current_setting('{name}')" for name in settings)
    hooks = f"""
        pre_hook=["{"; ".join(f"set {name} = {value}" for name, value in settings.items())}"],
        post_hook=["{noted}"],
    """
    model.write_text(model.read_text().replace("unique_key='order_id',", f"unique_key='order_id',{hooks}"))
    dbt("deps")
    dbt("run-operation", "load_orders")
    dbt("build", "--exclude", "orders_by_key")
    rows(f"create table noted ({', '.join(f'{name} text' for name in settings)})")
    # complete, and by key
    for _ in range(2):
        dbt("run-operation", "change_orders")
        dbt("build", "--select", "orders_by_key")
        rows("delete from shop_raw.orders where order_id = 1001")
    assert rows("table noted") == [tuple(settings.values())] * 2


SUMS = """
    select date_trunc('month', ordered_on)::date as month, status, count(*) as order_count, sum(amount) as amount,
        count(amount) as amount_count
    from fct_orders group by 1, 2
"""
DIFFERING_SUMS = f"(table sales_by_month except ({SUMS})) union all (({SUMS}) except table sales_by_month)"


def test_a_sum_by_difference_stays_right_when_its_table_is_edited_by_hand_and_corrected(dbt, rows, tmp_path):
    dbt("deps")
    dbt("run-operation", "load_orders")
    dbt("run", "--select", "+sales_by_month")
    edits = """
        update fct_orders set amount = amount + 1000, status = 'open' where order_id in (5, 6);
        delete from fct_orders where order_id in (7, 8); update fct_orders set amount = 0 where order_id = 1
    """
    for counted in (False, True):
        rows(edits)
        if counted:
            assert "sales_by_month" in keys(dbt("run", "--select", "sales_by_month"))
            assert rows(DIFFERING_SUMS) == []
        corrected = written(dbt("run", "--select", "fct_orders", "--full-refresh"))
        assert corrected["fct_orders"] == (2, 3, 0)
        assert "sales_by_month" in keys(dbt("run", "--select", "sales_by_month"))
        assert rows(DIFFERING_SUMS) == []
    # the next build of the table meets an edited row by its key, and a hook of it edits another
    model = tmp_path / "in_place" / "integration_tests" / "models" / "fct_orders.sql"
    hook = 'post_hook="update {{ this }} set amount = 1 where order_id = 9",'
    model.write_text(model.read_text().replace("config(", f"config({hook}", 1))
    rows(
        "update fct_orders set amount = 0 where order_id <= 3; update fct_orders set status = 'paid' where order_id = 4"
    )
    dbt("run-operation", "change_orders")
    both = ("--select", "fct_orders", "sales_by_month")
    assert "sales_by_month" in keys(dbt("run", *both))
    assert rows("select amount from fct_orders where order_id = 9") == [(1,)]
    assert rows(DIFFERING_SUMS) == []
    # a sum is NaN while a row of its group is
    for amount in ("'NaN'", "20"):
        rows(f"update shop_raw.orders set amount = {amount}, loaded_xid = default where order_id = 10")
        assert "computes all of its rows: a sum is or was NaN" in dbt("run", *both)
        assert rows(DIFFERING_SUMS) == []
    rows("update shop_raw.orders set amount = 21, loaded_xid = default where order_id = 10")
    assert "sales_by_month" in keys(dbt("run", *both))
    assert rows(DIFFERING_SUMS) == []
    # edits that no trigger has seen
    rows("alter table fct_orders disable trigger _tidemark_edits_update; update fct_orders set amount = 0")
    assert "edits of shop.fct_orders by hand were not logged" in " ".join(dbt("run", *both).split())
    assert rows(DIFFERING_SUMS) == []
    rows("truncate fct_orders")
    dbt("run", "--select", "sales_by_month")
    assert rows("table sales_by_month") == []
