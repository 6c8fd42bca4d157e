"""`tidemark metrics`: what Prometheus gets, from real runs, and what it gets when a part is away."""

from __future__ import annotations

import time
import urllib.request
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from singer_postgres.core import advisory_locks
from singer_postgres.core.warehouse.slot_table import SlotTable
from tests import advisory
from tests.integration.stages import make_checkout
from tests.ports import free_port
from tidemark.metrics import catalogue
from tidemark.metrics.schedules import longest_interval

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.integration.checkout import Checkout

Samples = dict[tuple[str, ...], float]
# as the target records runs: six that succeeded before, with 10 rows each
EARLIER = """
    insert into raw._tidemark_runs (source, stream, run_id, table_name, started_at, ended_at, outcome, rows_updated)
    select source, stream, 'earlier-' || n, table_name, started_at - n * interval '1 hour', ended_at, 'succeeded', 10
    from raw._tidemark_runs cross join generate_series(1, 6) n where stream = 'public-orders' and run_id not like 'ear%'
"""
RUNNING = """
    insert into raw._tidemark_runs (source, stream, run_id, table_name, rows_read)
    select distinct source, stream, 'now', table_name, 7 from raw._tidemark_runs where stream = 'public-customers'
"""
READABLE = """
    select count(*) from pg_class where relkind in ('r', 'p', 'v', 'm') and relname !~ '^_tidemark_'
        and relnamespace in ('raw'::regnamespace, 'staging'::regnamespace, 'marts'::regnamespace)
        and has_table_privilege('tidemark_watcher', oid, 'select')
"""


@pytest.fixture(scope="module")
def project() -> Iterator[Checkout]:
    """A project with a loaded shop and its models."""
    yield from make_checkout(stage="built")


@contextmanager
def exporter(project: Checkout, env: dict[str, str] | None = None) -> Iterator[str]:
    """Run the exporter, and return the address of its metrics."""
    port = free_port()
    with project.start("metrics", "--port", str(port), env=env) as process:
        try:
            url = f"http://127.0.0.1:{port}/metrics"
            assert url in process.stdout.readline()
            yield url
        finally:
            process.terminate()
            assert process.wait(timeout=20) == 0


def scrape(url: str) -> Samples:
    """Return the samples by name and values of labels, as OpenMetrics."""
    request = urllib.request.Request(url, headers={"Accept": "application/openmetrics-text; version=1.0.0"})  # noqa: S310
    with urllib.request.urlopen(request, timeout=30) as response:  # noqa: S310
        assert response.headers["Content-Type"].startswith("application/openmetrics-text")
        text = response.read().decode()
    return {
        (sample.name, *(value for _, value in sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


FOLLOWED = """
    update raw._tidemark_state set slot = 's', is_loading = false where stream = 'public-order_items';
    insert into raw._tidemark_slots (source, slot, system_identifier, timeline, history, position, committed_at,
        retained_bytes, behind_bytes, measured_at)
    select source, 's', '1', 1, '{}', '0/1', now() - interval '1 day 1 hour', 3000, 1000, now()
    from raw._tidemark_state where stream = 'public-order_items'
"""


@pytest.mark.long
def test_every_metric_of_the_reference_is_exported_after_real_runs(project):
    with project.connect("warehouse") as connection:
        connection.execute(
            "insert into marts._tidemark_model_runs (run_id, invocation_id, model, outcome, started_at, seconds) "
            "values ('r', 'i', 'removed', 'error', now(), 1)"
        )
    project.tidemark("run", "dbt-postgres:touched", "dbt-postgres:touched-test", env={"DBT_TOUCHED": "fct_sales"})
    project.tidemark("reconcile")
    project.tidemark("backup")
    project.tidemark("backup", "drill", "--no-sync")
    with project.connect("warehouse") as connection:
        connection.execute(EARLIER)
        connection.execute(RUNNING)
        connection.execute(
            "update raw._tidemark_stream_totals set failed = '{\"lock_busy\": 2}' where stream = 'public-orders'"
        )
        SlotTable("raw").ensure(connection)
        connection.execute(FOLLOWED)
        # it reads as a role that may read no row of the user's
        ((readable,),) = connection.execute(READABLE).fetchall()
        assert readable == 0
    with exporter(project) as url:
        loads = advisory_locks.key("tidemark load", "raw", "customers")
        with project.connect("warehouse") as connection, advisory.held(connection, loads):
            found = scrape(url)
        # the run was killed, and its lock is free
        assert ("tidemark_stream_running_rows", "postgres", "public-customers") not in scrape(url)
    names = {key[0] for key in found}
    assert {metric.name for metric in catalogue.ALL} - names == set()
    # named as in commands, not by its schema
    assert found["tidemark_source_info", "raw", "postgres"] == 1
    orders = ("postgres", "public-orders")
    ((rows,),) = project.rows("warehouse", "select count(*) from raw.orders")
    assert found["tidemark_stream_rows_total", "inserted", *orders] == rows
    assert found["tidemark_stream_usual_rows", *orders] == 10
    assert found["tidemark_stream_running_rows", "postgres", "public-customers"] == 7
    assert found["tidemark_stream_log_state", "postgres", "following", "public-order_items"] == 1
    # as fresh as its slot
    assert found["tidemark_stream_lag_seconds", "postgres", "public-order_items"] > 86_400
    assert found["tidemark_slot_lag_seconds", "s", "postgres"] > 86_400
    assert found["tidemark_slot_lag_bytes", "s", "postgres"] == 1000
    assert found["tidemark_slot_retained_bytes", "s", "postgres"] == 3000
    assert found["tidemark_stream_failures_total", "lock_busy", *orders] == 2
    assert found["tidemark_stream_runs_total", "failed", *orders] == 2
    assert found["tidemark_stream_interval_seconds", *orders] == 3600
    assert found["tidemark_stream_state_behind_seconds", *orders] == 0
    assert found["tidemark_stream_reconcile_rows", "missing", *orders] == 0
    assert 0 < found["tidemark_stream_lag_seconds", *orders] < 86_400
    ((rows,),) = project.rows("warehouse", "select count(*) from marts.fct_sales")
    assert found["tidemark_model_rows", "fct_sales"] == rows
    assert sum(value for key, value in found.items() if key[0] == "tidemark_model_tests" and key[2] == "pass") > 5
    # the project does not have it, so dbt forgot it
    assert ("tidemark_model_last_run", "removed", "error") not in found
    assert found["tidemark_backups",] == 1
    assert found["tidemark_backup_drill_success",] == 1


def test_a_held_lock_is_seen_by_the_next_scrape(project):
    keys = [advisory_locks.key("tidemark load", "raw", "orders"), advisory_locks.key("tidemark transform", "marts")]
    with exporter(project) as url:
        with project.connect("warehouse") as connection, advisory.held(connection, *keys):
            found = scrape(url)
        assert found["tidemark_stream_locked", "postgres", "public-orders"] == 1
        assert found["tidemark_stream_locked", "postgres", "public-customers"] == 0
        assert found["tidemark_build_locked",] == 1


@pytest.mark.long
def test_the_other_parts_are_exported_at_once_while_the_warehouse_is_away(project):
    with exporter(project) as url:
        assert scrape(url)["tidemark_up", "warehouse"] == 1
        project.tidemark("down")
        try:
            began = time.monotonic()
            found = scrape(url)
            assert time.monotonic() - began < 9  # Prometheus waits for 10 s
        finally:
            project.tidemark("up")
        assert found["tidemark_up", "warehouse"] == 0
        assert found["tidemark_up", "schedules"] == found["tidemark_up", "backups"] == 1
        assert ("tidemark_stream_lag_seconds", "postgres", "public-orders") not in found
        assert scrape(url)["tidemark_up", "warehouse"] == 1


def test_a_state_database_before_meltanos_first_run_is_no_fault(project, tmp_path):
    with project.connect("warehouse", "postgres") as connection:
        at = connection.info
        uri = f"postgresql+psycopg://{at.user}:{at.password}@{at.host}:{at.port}/{at.dbname}"
    file = tmp_path / "tidemark.prom"
    project.tidemark("metrics", "--textfile", str(file), env={"MELTANO_DATABASE_URI": uri})
    assert 'tidemark_up{part="state"} 1.0' in file.read_text()


@pytest.mark.long
def test_a_part_that_does_not_answer_keeps_no_other_part_waiting(project):
    """Whatever another tap wrote into Meltano's state, and however long its database is locked."""
    with project.connect("warehouse") as connection:
        connection.execute("create table state (state_id text, completed_state text, partial_state text)")
        connection.execute(
            "insert into state (state_id, completed_state) values ('dev:tap-x-to-target-x', %s)",
            ['{"singer_state": {"bookmarks": {"a": null, "b": "2020", "c": {"replication_key_value": 3}}}}'],
        )
        with exporter(project, {"MELTANO_DATABASE_URI": project.urls["warehouse"]}) as url:
            assert scrape(url)["tidemark_up", "state"] == 1
            with connection.transaction():
                connection.execute("lock table state")
                began = time.monotonic()
                found = [scrape(url) for _ in range(2)]
                assert time.monotonic() - began < 15
            assert [each["tidemark_up", "state"] for each in found] == [0, 0]
            assert all(each["tidemark_up", "warehouse"] == 1 for each in found)
            time.sleep(1)
            assert scrape(url)["tidemark_up", "state"] == 1
        connection.execute("drop table state")


@pytest.mark.long
def test_a_repair_and_a_backfill_are_no_runs_of_the_stream(project):
    with exporter(project) as url:
        before = scrape(url)
        project.tidemark("backfill", "public-orders", "--all")
        with project.connect("warehouse") as connection:
            connection.execute("delete from raw.orders where order_id = (select min(order_id) from raw.orders)")
        project.tidemark("reconcile", "public-orders", "--repair")
        after = scrape(url)
    for name in ("last_success_timestamp_seconds", "last_run_rows", "last_run_started_timestamp_seconds"):
        key = (f"tidemark_stream_{name}", "postgres", "public-orders")
        assert after[key] == before[key]
    runs = ("tidemark_stream_runs_total", "succeeded", "postgres", "public-orders")
    assert after[runs] == before[runs]
    inserted = ("tidemark_stream_rows_total", "inserted", "postgres", "public-orders")
    assert after[inserted] == before[inserted] + 1


def test_a_stream_that_moves_is_shown_by_its_latest_activity(project):
    with project.connect("warehouse") as connection:
        connection.execute(
            "insert into raw._tidemark_stream_totals (source, stream, failed) "
            "values ('new/1', 'public-products', '{\"lock_busy\": 1}')"
        )
        connection.execute(
            "insert into raw._tidemark_runs (source, stream, run_id, table_name, outcome, ended_at, error_code) "
            "values ('new/1', 'public-products', 'first there', 'products', 'failed', now(), 'lock_busy')"
        )
    with exporter(project) as url:
        found = scrape(url)
    assert found["tidemark_stream_last_run", "lock_busy", "failed", "postgres", "public-products"] == 1
    assert ("tidemark_stream_last_run", "", "succeeded", "postgres", "public-products") not in found


def test_a_file_for_node_exporter_is_written_whole_and_another_ending_is_refused(project, tmp_path):
    project.tidemark("metrics", "--textfile", str(tmp_path / "tidemark.prom"))
    text = (tmp_path / "tidemark.prom").read_text()
    assert 'tidemark_up{part="warehouse"} 1.0' in text
    assert [path.name for path in tmp_path.iterdir()] == ["tidemark.prom"]
    assert "must end in .prom" in project.refusal("metrics", "--textfile", str(tmp_path / "tidemark.txt"))


@pytest.mark.parametrize(
    ("cron", "seconds"),
    [
        ("@hourly", 3600),
        ("*/5 * * * *", 300),
        # from Friday evening to Monday morning
        ("0 8-18 * * 1-5", 62 * 3600),
        ("*/5 * * * 1-5", 48 * 3600 + 300),
        ("* 8-17 * * 1-5", 62 * 3600 + 60),
        ("30 3 * * *", 86400),
        ("@manual", None),
    ],
)
def test_a_schedule_is_late_after_its_longest_pause(cron, seconds):
    assert longest_interval(cron) == seconds
