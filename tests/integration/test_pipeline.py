"""The whole job on the demo shop."""

from __future__ import annotations

import json
import os
import re
import signal
import time
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING
from urllib.request import urlopen

import psutil
import pytest

from tests import leaks, programs
from tests.conftest import REPOSITORY
from tests.integration.shop import TABLES, assert_raw_equals_source
from tests.integration.stages import make_checkout
from tests.ports import free_port
from tidemark.project import file_locks

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Iterator

    from tests.integration.checkout import Checkout


@dataclass(frozen=True)
class FirstRun:
    """A project's first run, and a second one that was tried at the same time."""

    pid: int
    printed: str
    second: subprocess.CompletedProcess[str]


@pytest.fixture(scope="module")
def loaded() -> Iterator[tuple[Checkout, FirstRun]]:
    """A project after a pipeline run. Each test leaves it in order: raw equals the source, all tests pass."""
    for checkout in make_checkout():
        running = checkout.meanwhile("tidemark", "pipeline")
        lock = checkout.root / ".tidemark" / "pipeline.lock"
        while not (lock.exists() and (pid := file_locks.holder(lock))):
            time.sleep(0.05)
        second = checkout.run("tidemark", "pipeline")
        first = running.result()
        assert first.returncode == 0, first.stderr
        yield checkout, FirstRun(pid, first.stdout + first.stderr, second)


def test_one_of_two_simultaneous_runs_runs_and_the_other_says_so(loaded):
    _, first = loaded
    assert first.second.returncode == 75
    assert f"Another process (pid {first.pid}) is running the pipeline" in first.second.stderr


def test_every_raw_table_holds_the_sources_rows_and_values(loaded):
    checkout, _ = loaded
    assert_raw_equals_source(checkout, deleted_stay=True)


def test_a_source_in_another_time_zone_and_date_style_arrives_as_the_same_instants(loaded):
    checkout, _ = loaded
    with checkout.connect("source") as connection:
        connection.execute("alter database shop set timezone = 'Asia/Kathmandu'")
        connection.execute("alter database shop set datestyle = 'German'")
        connection.execute("update orders set shipping_fee = shipping_fee + 1 where order_id <= 50")
    try:
        checkout.extract_and_load()
        assert_raw_equals_source(checkout, deleted_stay=True)
    finally:
        with checkout.connect("source") as connection:
            connection.execute("alter database shop reset all")


def test_the_star_schema_is_in_exactly_the_four_schemas(loaded):
    checkout, _ = loaded
    found = checkout.rows(
        "warehouse",
        """
        select nspname || '.' || relname from pg_class join pg_namespace on pg_namespace.oid = relnamespace
        where relkind in ('r', 'p', 'v', 'm') and not relispartition
            and nspname !~ '^pg_|^information_schema$|^tidemark$'
        """,
    )
    assert {name for (name,) in found} == {
        *(f"raw.{table}" for table in TABLES),
        *(f"raw._tidemark_{table}" for table in ("runs", "schema_changes", "state", "stream_totals")),
        *(f"staging.stg_{table}" for table in TABLES),
        *("intermediate.int_orders_enriched", "intermediate.int_order_items_enriched"),
        *("intermediate.customers_snapshot", "intermediate.products_snapshot"),
        *("marts.dim_customers", "marts.dim_customers_history", "marts.dim_dates", "marts.dim_products"),
        *("marts.fct_orders", "marts.fct_sales"),
        *("marts.mart_customer_lifetime", "marts.mart_daily_sales", "marts.mart_monthly_sales"),
        *(f"marts._tidemark_{table}" for table in ("model_runs", "models", "test_results")),
        "intermediate._tidemark_models",
        *(f"{schema}._tidemark_changes" for schema in ("raw", "intermediate", "marts")),
        *(f"{schema}._tidemark_tracked" for schema in ("raw", "intermediate", "marts")),
    }


def test_the_page_of_tables_has_every_column_that_the_warehouse_has_and_its_type(loaded):
    checkout, _ = loaded
    page = (REPOSITORY / "docs/reference/tables.md").read_text()
    tables = dict(re.findall(r"^### `(\w+)`\n((?:(?!^#).*\n)*)", page, re.MULTILINE))
    documented = {
        (table, *column)
        for table, text in tables.items()
        for column in re.findall(r"^\| `(\w+)` \| `([\w ]+(?:\[\])?)", text, re.MULTILINE)
    }
    found = checkout.rows(
        "warehouse",
        """
        select relname, attname, format_type(atttypid, null), (
            select typname from pg_type where pg_type.oid = atttypid
        )
        from pg_class inner join pg_attribute on attrelid = pg_class.oid
        where relname like '\\_tidemark\\_%' and relname not like '\\_tidemark\\_stage%'
            and relkind = 'r' and attnum > 0 and not attisdropped
        """,
    )
    present = {row[0] for row in found}
    assert present >= {"_tidemark_state", "_tidemark_runs", "_tidemark_models", "_tidemark_model_runs"}
    # by the name that the statement gives it, such as bigint, or by PostgreSQL's own, such as timestamptz
    types = {(table, column): {name, own} for table, column, name, own in found}
    assert {key for key in types if not any((*key, type_) in documented for type_ in types[key])} == set()
    assert {entry[:2] for entry in documented if entry[0] in present} == types.keys()


def test_the_marts_money_is_the_shops_to_the_cent(loaded):
    checkout, _ = loaded
    in_shop = checkout.rows("source", "select sum(quantity * unit_price - discount) from order_items")
    assert checkout.rows("warehouse", "select sum(revenue) from marts.fct_sales") == in_shop
    assert checkout.rows("warehouse", "select sum(revenue) from marts.fct_orders") == in_shop


def test_the_summary_shows_rows_models_tests_and_next_steps(loaded):
    printed = loaded[1].printed
    assert set(streams(printed)) == {f"public-{table}" for table in TABLES}
    for stream, figures in streams(printed).items():
        ((rows,),) = loaded[0].rows("source", f"select count(*) from {stream.removeprefix('public-')}")
        assert figures == {"read": rows, "new": rows, "changed": 0, "deleted": 0, "unchanged": 0}, stream
    assert re.search(r"^\d+ models built\.$", printed, re.MULTILINE)
    assert re.search(r"^\d+ tests passed\.$", printed, re.MULTILINE)
    assert "make demo-change" in printed


def test_a_second_run_writes_nothing_and_a_change_is_moved(loaded):
    checkout, _ = loaded
    checkout.extract_and_load({"TIDEMARK_RUN_ID": "idle"})
    idle = "select sum(rows_inserted + rows_updated + rows_deleted), count(*) from raw._tidemark_runs"
    assert checkout.rows("warehouse", f"{idle} where run_id = 'idle'") == [(0, 4)]

    checkout.tidemark("demo", "change", "--rows", "400", "--seed", "1")
    said = checkout.tidemark("run", "tap-postgres", "target-postgres", "dbt-postgres:run", "--json")
    moved = json.loads(said.splitlines()[-1])["report"]["streams"]
    assert (moved["public-customers"]["inserted"], moved["public-customers"]["updated"]) == (8, 20)
    assert moved["public-products"]["updated"] == 12
    assert moved["public-orders"]["inserted"] == 60
    assert facts_are_what_a_full_build_would_give(checkout)
    # a replication key does not show a hard delete; everything else equals the shop
    assert_raw_equals_source(checkout, deleted_stay=True)


def test_a_failing_test_fails_the_run_and_is_named(loaded):
    checkout, _ = loaded
    oldest = "order_id = (select order_id from raw.orders order by updated_at limit 1)"
    with checkout.connect("warehouse") as connection:
        ((status,),) = connection.execute(f"select status from raw.orders where {oldest}").fetchall()
        connection.execute(f"update raw.orders set status = 'lost' where {oldest}")
    try:
        # the tests of this table alone; all of them passed in the first run
        error = checkout.refusal("run", "dbt-postgres:touched-test", env={"DBT_TOUCHED": "stg_orders"})
        assert error.startswith("error: accepted_values_stg_orders_order_status_")
        assert "Got 1 result, configured to fail if != 0. What to do: docs/runbook.md#tests_failed" in error
    finally:
        with checkout.connect("warehouse") as connection:
            connection.execute(f"update raw.orders set status = %s where {oldest}", [status])


@pytest.mark.long
def test_a_run_whose_parent_was_killed_still_excludes_the_next(loaded):
    checkout, _ = loaded
    run = checkout.start("pipeline")
    while not (meltano := [child for child in _children(run.pid) if "run" in programs.command_line(child)]):
        time.sleep(0.05)
    os.kill(run.pid, signal.SIGKILL)
    run.communicate()
    try:
        assert "Another process" in checkout.refusal("pipeline")
    finally:
        meltano[0].terminate()
        psutil.wait_procs(meltano, timeout=60)
    checkout.extract_and_load()
    assert_raw_equals_source(checkout, deleted_stay=True)


def test_meltanos_state_commands_work(loaded):
    checkout, _ = loaded
    state_id = "dev:tap-postgres-to-target-postgres"
    assert checkout.run("meltano", "state", "list").stdout.strip() == state_id
    state = json.loads(checkout.run("meltano", "state", "get", state_id).stdout)
    ((committed,),) = checkout.rows(
        "warehouse", "select bookmark from raw._tidemark_state where stream = 'public-orders'"
    )
    assert state["singer_state"]["bookmarks"]["public-orders"]["replication_key_value"] == committed
    ((newest,),) = checkout.rows("source", "select max(updated_at) from orders")
    assert datetime.fromisoformat(committed) >= newest


def test_each_run_logs_json_lines_with_its_id_the_stream_and_counts(loaded):
    checkout, _ = loaded
    lines = [json.loads(line) for line in (checkout.root / "logs" / "meltano.jsonl").read_text().splitlines()]
    counted = [line for line in lines if line.get("tidemark.metric.name") == "record_count"]
    assert {line["tidemark.stream"] for line in counted} == {f"public-{table}" for table in TABLES}
    assert all(len(line["tidemark.run_id"]) == 36 for line in counted)
    kept = {run_id for (run_id,) in checkout.rows("warehouse", "select distinct run_id from raw._tidemark_runs")}
    assert kept & {line["tidemark.run_id"] for line in counted}, "run records and log have the same id"
    assert len({line["event.id"] for line in lines}) == len(lines), "each line has an id of its own"
    ran = {line["tidemark.model"] for line in lines if line.get("event.action") == "LogModelResult"}
    assert {"stg_orders", "fct_sales"} <= ran, "dbt's lines name their model"


def test_status_shows_the_latest_run_of_each_stream_its_age_and_its_cost(loaded):
    checkout, _ = loaded
    with checkout.connect("warehouse") as connection:
        # a run that failed before anything was loaded, and so before the source was known
        connection.execute(
            "insert into raw._tidemark_runs (source, stream, run_id, table_name, started_at, ended_at, outcome, error) "
            "select '', 'public-orders', 'before', 'orders', now() - interval '1 day', now(), 'failed', 'no setting'"
        )
        facts = [json.loads(line) for line in checkout.tidemark("status", "--json").splitlines()]
        connection.execute("delete from raw._tidemark_runs where run_id = 'before'")
    of_streams = [fact for fact in facts if "stream" in fact]
    runs = {fact["stream"]: fact for fact in of_streams}
    assert len(of_streams) == len(runs)
    assert set(runs) == {f"public-{table}" for table in TABLES}
    assert runs["public-orders"]["outcome"] == "succeeded"
    assert 0 <= runs["public-orders"]["age_seconds"] < 86_400
    assert runs["public-orders"]["costs"]["source_bytes"] > 0
    printed = checkout.tidemark("status")
    assert "public-orders" in printed
    assert re.search(r" [\d.]+ MB in [\d.]+ s +\d+ min", printed)


def test_source_freshness_and_dbt_commands_run_through_meltano(loaded):
    checkout, _ = loaded
    done = checkout.run("meltano", "invoke", "dbt-postgres:freshness")
    assert done.returncode == 0, done.stdout
    assert done.stdout.count("PASS freshness of raw.") == 4
    # dbt reuses what it parsed before, although its sessions have another name
    assert "Unable to do partial parsing" not in done.stdout


@pytest.mark.long
def test_a_table_is_added_as_the_readme_says(loaded):
    checkout, _ = loaded
    with checkout.connect("source") as connection:
        connection.execute("create table suppliers (id int primary key, name text, updated_at timestamptz)")
        connection.execute("create table visits (page text)")
        connection.execute("insert into suppliers values (1, 'Ann', now()), (2, 'Bob', now())")
        connection.execute("insert into visits values ('/'), ('/'), ('/cart')")
    extractors = checkout.root / "extract" / "extractors.meltano.yml"
    before = extractors.read_text()
    added = before.replace(
        "        - public-orders.*\n",
        "".join(f"        - public-{table}.*\n" for table in ("orders", "suppliers", "visits", "nowhere")),
    ).replace(
        "        public-orders: *incremental\n",
        "        public-orders: *incremental\n        public-suppliers: *incremental\n",
    )
    extractors.write_text(added)
    try:
        error = checkout.refusal("pipeline")
        assert "public-nowhere is selected, and the source has no such table" in error
        extractors.write_text(added.replace("        - public-nowhere.*\n", ""))
        with checkout.connect("source") as connection:
            connection.execute("alter table suppliers add column city text")
            connection.execute("update suppliers set city = 'Oslo', updated_at = now() where id = 1")
            connection.execute("delete from visits where page = '/cart'")
        checkout.extract_and_load()
        assert checkout.rows("warehouse", "select id, name, city from raw.suppliers order by id") == [
            (1, "Ann", "Oslo"),
            (2, "Bob", None),
        ]
        # read in full: no row twice although there is no key, and deleted rows are gone
        assert checkout.rows("warehouse", "select page from raw.visits") == [("/",), ("/",)]
    finally:
        extractors.write_text(before)


def test_passwords_are_in_no_log_no_output_and_no_file_but_env(loaded):
    checkout, first = loaded
    debug = {"MELTANO_RUN_FORCE": "1", **leaks.talkative(checkout.root)}
    runs = [
        checkout.run("meltano", "run", "tap-postgres", "target-postgres", env={**debug, **more})
        for more in ({}, {"TAP_POSTGRES_DATABASE": "no"}, {"TARGET_POSTGRES_DATABASE": "no"})
    ]
    assert [done.returncode for done in runs] == [0, 1, 1]
    assert "[debug " in runs[0].stderr
    runs += [checkout.run("tidemark", "--debug", "status"), checkout.dbt("debug", env=debug), first.second]
    assert len(secrets := leaks.secrets(checkout.root)) == 6
    assert leaks.in_text(secrets, first.printed + "".join(done.stdout + done.stderr for done in runs)) == []
    # including the servers' own data, which holds only a hash of each password
    assert leaks.in_files(secrets, checkout.root, ("logs", ".meltano", ".tidemark")) == []
    assert (checkout.root / ".env").stat().st_mode & 0o777 == 0o600


@pytest.mark.long
def test_the_documentation_is_served_until_ctrl_c(loaded):
    checkout, _ = loaded
    port = free_port()
    docs = checkout.start("docs", "--port", str(port))
    assert docs.stdout
    assert f"http://127.0.0.1:{port}" in docs.stdout.readline()
    with urlopen(f"http://127.0.0.1:{port}/catalog.json") as page:
        assert "fct_sales" in page.read().decode()
    assert "is taken" in checkout.refusal("docs", "--port", str(port))
    os.killpg(docs.pid, signal.SIGINT)
    printed, _ = docs.communicate(timeout=10)
    assert (docs.returncode, printed) == (0, "")


def facts_are_what_a_full_build_would_give(checkout: Checkout) -> bool:
    """Compare the incremental fact with what its models return now."""
    columns = "select order_item_id, order_id, customer_id, order_status, ordered_at, revenue from"
    fact, now = f"{columns} marts.fct_sales", f"{columns} intermediate.int_order_items_enriched"
    return checkout.rows("warehouse", f"({fact} except {now}) union all ({now} except {fact})") == []


def _children(pid: int) -> list[psutil.Process]:
    return psutil.Process(pid).children(recursive=True)


def streams(printed: str) -> dict[str, dict[str, int]]:
    """Return the figures of the summary's table."""
    headings = ("read", "new", "changed", "deleted", "unchanged")
    found = re.findall(r"^(\S+-\S+) +([\d,]+) +([\d,]+) +([\d,]+) +([\d,]+) +([\d,]+) +\S", printed, re.MULTILINE)
    return {
        stream: dict(zip(headings, (int(figure.replace(",", "")) for figure in figures), strict=True))
        for stream, *figures in found
    }
