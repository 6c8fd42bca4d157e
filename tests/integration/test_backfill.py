"""`tidemark backfill` loads rows that no bookmark leads to, up to the facts, and moves no bookmark."""

from __future__ import annotations

import json
import sqlite3
from typing import TYPE_CHECKING, Any

import pytest

from tests.integration.stages import make_checkout
from tests.singer.test_crashes import wait_for
from tidemark.project.file_locks import hold

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.integration.checkout import Checkout

BOOKMARKS = "select stream, bookmark, first_load from raw._tidemark_state order by stream"
NEWEST = "select stream, max(extracted_at) from raw._tidemark_runs where outcome = 'succeeded' group by 1 order by 1"


@pytest.fixture(scope="module")
def project() -> Iterator[Checkout]:
    """A loaded and built project."""
    yield from make_checkout(stage="built")


def change(project: Checkout, statement: str) -> None:
    """Change rows of the source without a new stamp, as a restore does."""
    with project.connect("source") as connection:
        connection.execute("set session_replication_role = replica")
        connection.execute(statement)


def standing(project: Checkout) -> list[Any]:
    """Return everything that decides the next run, and what says how fresh the streams are."""
    with sqlite3.connect(project.root / ".meltano" / "meltano.db") as database:
        meltano = database.execute("select * from state").fetchall()
    assert meltano
    return [meltano, project.rows("warehouse", BOOKMARKS), project.rows("warehouse", NEWEST)]


def report(printed: str) -> dict[str, Any]:
    return json.loads(printed.splitlines()[-1])["report"]


def fees(project: Checkout, table: str) -> list[Any]:
    return project.rows("warehouse", f"select count(*), count(distinct order_id) from {table} where shipping_fee = 777")


def oldest(project: Checkout, rows: int) -> str:
    """Return the stamp that has `rows` orders before it."""
    query = f"select updated_at::text from orders order by updated_at offset {rows} limit 1"
    return project.rows("source", query)[0][0]


def test_rows_changed_behind_the_bookmark_reach_the_facts_and_the_state_does_not_change(project):
    change(project, "update orders set shipping_fee = 777")
    before = standing(project)
    asked = ("backfill", "public-orders", "--to", oldest(project, 20))
    # the tests of the shop take longer than all the rest
    told = report(project.tidemark(*asked, "--build", "--json", env={"DBT_EXCLUDE_RESOURCE_TYPES": "test unit_test"}))
    assert told["streams"] == {"public-orders": {"read": 20, "updated": 20}}
    assert told["error"] is None
    assert told["nodes"]["failed"] == 0
    # models that depend on orders, and no others
    built = {
        name
        for (name,) in project.rows(
            "warehouse", f"select model from marts._tidemark_model_runs where run_id = '{told['run_id']}'"
        )
    }
    assert {"stg_orders", "fct_orders", "fct_sales"} <= built
    assert not built & {"stg_customers", "stg_products"}
    assert fees(project, "raw.orders") == fees(project, "marts.fct_orders") == [(20, 20)]
    assert standing(project) == before


@pytest.mark.long
def test_the_steps_of_a_backfill_can_run_one_by_one(project):
    change(project, "update orders set shipping_fee = 777")
    asked = ("backfill", "public-orders", "--to", oldest(project, 40), "--json")
    loaded = report(project.tidemark(*asked))
    assert loaded["streams"]["public-orders"]["read"] == 40
    assert loaded["nodes"] == {}
    # the last run was long ago, and a backfill does not make rows fresher
    age = "update raw._tidemark_runs set ended_at = ended_at {} interval '80 hours' where extracted_at is not null"
    with project.connect("warehouse") as connection:
        connection.execute(age.format("-"))
        stale = project.dbt("source", "freshness", "--select", "source:raw.orders")
        connection.execute(age.format("+"))
    assert "ERROR STALE freshness of raw.orders" in stale.stdout
    built = report(project.tidemark(*asked, "--step", "build"))
    assert built["streams"] == {}
    assert fees(project, "marts.fct_orders") == [(40, 40)]
    tested = report(project.tidemark(*asked, "--step", "test"))
    assert tested["nodes"]["passed"] > built["nodes"]["passed"] > 0


@pytest.mark.long
def test_a_full_refresh_reads_all_rows_and_excludes_another_run_meanwhile(project):
    change(project, "update products set price = 99, name = 'another'")
    bookmark = "select bookmark, first_load from raw._tidemark_state where stream = 'public-products'"
    before = project.rows("warehouse", bookmark)
    columns = [f"public-{stream}.*" for stream in ("customers", "products", "orders", "order_items")]
    environment = {"TAP_POSTGRES__SELECT": json.dumps([*columns, "!public-products.name"])}
    with project.connect("warehouse") as connection:
        connection.autocommit = False
        connection.execute("lock table raw.products in share mode")
        under_way = project.start("backfill", "public-products", "--all", "--json", env=environment)
        waiting = "select 1 from pg_locks where not granted and relation = 'raw.products'::regclass"
        wait_for(lambda: project.rows("warehouse", waiting))
        busy = project.run("tidemark", "run", "tap-postgres", "target-postgres")
        connection.rollback()
    printed, _ = under_way.communicate(timeout=120)
    assert under_way.returncode == 0, printed
    assert busy.returncode == 75
    assert "Another run is loading public-products" in busy.stderr
    told = report(printed)
    assert told["streams"].keys() == {"public-products"}
    (row,) = project.rows(
        "warehouse", "select min(price), max(price), count(*), bool_or(name = 'another') from raw.products"
    )
    assert row == (99, 99, told["streams"]["public-products"]["updated"], False)
    # the run that could not load this stream moved the others' bookmarks
    assert project.rows("warehouse", bookmark) == before


def test_a_running_run_excludes_a_backfill(project):
    with hold(project.root / ".tidemark" / "pipeline.lock", doing="running the pipeline"):
        done = project.run("tidemark", "backfill", "public-orders", "--all")
    assert done.returncode == 75
    assert "is running the pipeline" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (["public-order", "--all"], "No such stream is selected: public-order; selected are public-customers, "),
        (["public-orders", "public-customers", "--from", "soon"], "The backfill of public-orders has from 'soon'"),
        (["public-orders", "--all", "--to", "2026-01-01"], "Say which rows"),
        (["public-later", "--all"], "public-later has not been loaded into raw.later; run the pipeline first."),
    ],
    ids=["an unknown stream", "no value of the key", "two ranges", "a stream that is not loaded"],
)
def test_an_impossible_backfill_is_refused_before_any_work(project, arguments, error):
    change(project, "create table if not exists later (id int primary key, updated_at timestamptz)")
    environment = {"TAP_POSTGRES__SELECT": '["public-customers.*", "public-orders.*", "public-later.*"]'}
    runs = "select count(*) from raw._tidemark_runs"
    before = project.rows("warehouse", runs)
    assert error in project.refusal("backfill", *arguments, env=environment)
    assert project.rows("warehouse", runs) == before
