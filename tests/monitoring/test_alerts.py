"""Each alert that rests on `tidemark metrics` is fired by its real fault, is one message, and ends with the fault."""

from __future__ import annotations

import json
import shutil
import time
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

import psutil
import psycopg
import pytest

from singer_postgres.core import advisory_locks
from tests import advisory
from tests.integration.backups import copy, newest
from tests.integration.stages import make_checkout
from tests.monitoring.alerting import EXPORTER, wait_for, wanted, watching

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.monitoring.alerting import Monitoring

pytestmark = wanted
BUILDS = advisory_locks.key("tidemark transform", "marts")


@pytest.fixture(scope="module")
def watched(tmp_path_factory) -> Iterator[Monitoring]:
    """A project with a loaded shop and its models; nothing is wrong but that it has no backup."""
    for project in make_checkout(stage="built"):
        with watching(project, tmp_path_factory.mktemp("monitoring")) as monitoring:
            yield monitoring


@pytest.mark.monitoring
def test_a_fault_is_one_message_with_its_section_and_outlasts_the_exporter(watched):
    with watched.project.connect("warehouse") as connection, advisory.held(connection, BUILDS):
        message = watched.says("BuildLocked", "A session has held the lock of dbt's builds")
        assert "What to do: https://example.com/runbook.md#busy" in message.text
        watched.kill("tidemark")
        watched.says("TidemarkExporterAbsent", "No stream, model or backup is watched")
        watched.start_exporter()
        watched.says("TidemarkExporterAbsent", resolved=True)
        assert len([one for one in watched.messages() if one.alert == "BuildLocked"]) == 1
    watched.says("BuildLocked", resolved=True)


# --- the rest takes minutes: `make test-monitoring`

# six runs before, with 10 rows each, as the target records them
EARLIER = """
    insert into raw._tidemark_runs (source, stream, run_id, table_name, started_at, ended_at, outcome, rows_updated)
    select source, stream, 'earlier-' || n, table_name, now() - n * interval '1 hour', now(), 'succeeded', 10
    from raw._tidemark_state cross join generate_series(1, 6) n where stream in ('public-orders', 'public-order_items')
"""
RECORDS = [
    {
        "type": "SCHEMA",
        "stream": "things",
        "schema": {"properties": {"id": {"type": "integer"}, "name": {"type": ["string", "null"]}}},
        "key_properties": ["id"],
    },
    # the server refuses a NUL character
    {"type": "RECORD", "stream": "things", "record": {"id": 1, "name": "a\0b"}},
]
# each alert of streams, models and backups; the schedules' and the outages' are below
PLANTED = {
    "StreamFailed": ("public-customers failed (constraint_violation)", "runbook.md#constraint_violation"),
    "StreamSchemaRefused": ("public-products was refused (column_retyped)", "runbook.md#shape"),
    "StreamManyRows": ("public-orders wrote 600 rows; 10 are usual", "runbook.md#volume"),
    "StreamNoRows": ("public-order_items wrote 0 rows; 10 are usual", "runbook.md#volume"),
    "StreamRejects": ("1 rejected records of things", "runbook.md#rejects"),
    "ReconcileDifferences": ("1 rows of public-order_items differ", "runbook.md#reconcile"),
    "ReconcileFailed": ("the comparison of public-products", "runbook.md#reconcile"),
    "ModelFailed": ("The last build of stg_customers failed", "runbook.md#models"),
    "TestsFailing": ("1 data tests of stg_order_items fail", "runbook.md#tests"),
    "BackupMissing": ("There are 0 backups", "runbook.md#backup"),
}


def do(watched: Monitoring, side: str, *statements: str) -> None:
    with watched.project.connect(side) as connection:
        for statement in statements:
            connection.execute(statement)


def load(watched: Monitoring, env: dict[str, str] | None = None) -> int:
    """Run tap and target as a schedule does, and return the status."""
    return watched.project.run("tidemark", "run", "tap-postgres", "target-postgres", env=env).returncode


def touch(table: str, rows: int) -> str:
    key = f"{table.removesuffix('s')}_id"
    return f"update {table} set updated_at = now() where {key} in (select {key} from {table} limit {rows})"


@contextmanager
def scheduled(watched: Monitoring, **intervals: str) -> Iterator[None]:
    """Let schedules have other intervals, as if they had been started so often so far."""
    path = watched.project.root / "orchestrate" / "schedules.json"
    before = watched.project.tidemark("schedules")
    content = json.loads(before)
    build = {"name": "builds", "interval": "@manual", "env": {}, "tasks": ["dbt-postgres:run"]}
    content["schedules"] = [*content["schedules"], build]
    content["schedules"][0]["tasks"] = content["schedules"][0]["tasks"][:1]
    for schedule, name in ((content["schedules"][0], "load"), (build, "build")):
        schedule["interval"] = intervals.get(name, "@hourly")
    path.write_text(json.dumps(content))
    try:
        yield
    finally:
        path.write_text(before)


@pytest.mark.monitoring
def test_planted_faults_of_streams_models_and_backups_are_reported_and_resolved(watched, tmp_path):
    project = watched.project
    do(watched, "warehouse", "alter table raw.customers add constraint refused check (false) not valid")
    do(
        watched,
        "source",
        "alter table products alter tags type text using tags::text",
        *(touch(table, 5) for table in ("products", "customers")),
        touch("orders", 600),
    )
    assert load(watched) == 1
    do(watched, "warehouse", EARLIER)
    lines = tmp_path / "lines"
    lines.write_text("\n".join(map(json.dumps, RECORDS)))
    project.run(
        *("meltano", "invoke", "target-postgres", "--input", str(lines)), env={"TARGET_POSTGRES_MAX_REJECTS": "5"}
    )
    do(watched, "source", "alter table products enable row level security")
    # a row that the source never had
    do(
        watched,
        "warehouse",
        "insert into raw.order_items select (jsonb_populate_record(i, '{\"order_item_id\": 999999}')).* "
        "from raw.order_items i limit 1",
    )
    assert project.run("tidemark", "reconcile", "public-order_items", "public-products").returncode == 1
    do(
        watched,
        "warehouse",
        "alter table raw.customers rename city to town",
        "update raw.order_items set quantity = 0 where order_item_id = 1",
    )
    assert project.dbt("run", "--select", "stg_customers").returncode == 1
    assert project.dbt("test", "--select", "stg_order_items", "--exclude", "test_type:unit").returncode == 1
    for alert, (words, section) in PLANTED.items():
        assert section in watched.says(alert, words).text

    do(
        watched,
        "warehouse",
        "alter table raw.customers rename town to city",
        "alter table raw.customers drop constraint refused",
        "update raw.order_items set quantity = 1 where order_item_id = 1",
        "delete from raw._tidemark_rejects",
    )
    do(
        watched,
        "source",
        "alter table products disable row level security",
        "alter table products alter tags type text[] using tags::text[]",
    )
    do(watched, "source", touch("orders", 10), touch("order_items", 10))
    assert load(watched) == 0
    assert project.run("tidemark", "reconcile", "--repair").returncode == 0
    assert project.run("tidemark", "reconcile").returncode == 0
    project.build("--select", "stg_customers")
    assert project.dbt("test", "--select", "stg_order_items", "--exclude", "test_type:unit").returncode == 0
    project.tidemark("backup")
    look_for_backups(watched)
    for alert in PLANTED:
        watched.says(alert, resolved=True)


def look_for_backups(watched: Monitoring) -> None:
    """Start another exporter: it looks for backups when it starts, and then once a minute."""
    watched.replace_exporter()


@pytest.mark.monitoring
def test_a_drill_that_fails_is_reported_until_one_succeeds(watched):
    def one_more(manifest: dict[str, Any]) -> None:
        # as if the dump had lost a row
        manifest["warehouse"]["tables"]["raw.orders"]["rows"] += 1

    bad = copy(newest(watched.project), "tidemark-20990101T000000Z-00000d", one_more)
    watched.project.refusal("backup", "drill", "--no-sync")
    look_for_backups(watched)
    assert "runbook.md#backup" in watched.says("BackupDrillFailed", "The last drill could not restore a backup").text
    shutil.rmtree(bad)
    watched.project.tidemark("backup", "drill", "--no-sync")
    look_for_backups(watched)
    watched.says("BackupDrillFailed", resolved=True)


@pytest.mark.monitoring
def test_a_stopped_schedule_is_one_message_until_it_runs_again(watched):
    watched.forget()
    with scheduled(watched, load="* * * * * */4"):
        message = watched.says("StreamNotStarted", "no run has begun to load public-orders for")
        assert "runbook.md#freshness" in message.text
        # two intervals are over, too: a consequence
        wait_for(lambda: watched.firing("StreamNoSuccessfulRun"), "StreamNoSuccessfulRun")
        assert load(watched) == 0
    watched.says("StreamNotStarted", resolved=True)
    assert watched.is_silent_about("StreamNoSuccessfulRun")


@pytest.mark.monitoring
def test_a_run_that_hangs_and_then_is_killed_is_reported_as_both(watched):
    watched.forget()
    do(watched, "source", touch("orders", 5))
    with scheduled(watched, load="* * * * * */4"):
        with watched.project.connect("warehouse") as blocker, blocker.transaction():
            blocker.execute("select from raw.orders for update")
            run = watched.project.start("run", "tap-postgres", "target-postgres")
            message = watched.says("StreamLocked", "a session holds the run lock of public-orders")
            assert "runbook.md#busy" in message.text
            kill_all(run.pid)
            run.communicate()
            message = watched.says("StreamNoSuccessfulRun", "no run of public-orders has succeeded for")
            assert "runbook.md#freshness" in message.text
        watched.says("StreamLocked", resolved=True)
        assert load(watched) == 0
    watched.says("StreamNoSuccessfulRun", resolved=True)


def kill_all(pid: int) -> None:
    """Kill a process with all that it started, as the kernel does when memory runs out."""
    process = psutil.Process(pid)
    for each in [process, *process.children(recursive=True)]:
        with suppress(psutil.NoSuchProcess):
            each.kill()


@pytest.mark.monitoring
def test_an_open_transaction_that_holds_a_bookmark_back_is_one_message(watched):
    watched.forget()
    with scheduled(watched, load="* * * * * */4"):
        with watched.project.connect("source") as writer, writer.transaction():
            writer.execute(touch("orders", 5))
            time.sleep(4)
            assert load(watched) == 0
            message = watched.says("StreamBookmarkHeld", "the bookmark of public-orders was held back for")
            assert "runbook.md#held" in message.text
        assert load(watched) == 0
        watched.says("StreamBookmarkHeld", resolved=True)


@pytest.mark.monitoring
def test_a_warehouse_that_is_behind_although_runs_succeed_is_reported(watched):
    watched.forget()
    # as if the source were a standby that is two hours behind
    behind = "update raw._tidemark_stream_totals set extracted_at = now() - interval '121 minutes'"
    do(watched, "warehouse", f"{behind} where stream = 'public-orders'")
    message = watched.says("StreamStale", "the warehouse has public-orders as it was 2h 1m")
    assert "runbook.md#lag" in message.text
    assert load(watched) == 0
    watched.says("StreamStale", resolved=True)


@pytest.mark.monitoring
def test_models_that_nobody_builds_or_that_are_skipped_are_reported(watched):
    watched.forget()
    with scheduled(watched, build="* * * * * */8"):
        message = watched.says("ModelsNotBuilt", "No model was built for")
        assert "runbook.md#marts" in message.text
        watched.project.build("--select", "stg_customers")
        watched.says("ModelsNotBuilt", resolved=True)
        do(watched, "warehouse", "alter table raw.customers rename city to town")
        try:
            assert watched.project.dbt("run", "--select", "stg_customers+").returncode == 1
            wait_for(lambda: watched.firing("ModelStale"), "ModelStale")
        finally:
            do(watched, "warehouse", "alter table raw.customers rename town to city")
        watched.project.build("--select", "stg_customers+")
    watched.says("ModelFailed", resolved=True)
    # the model that failed explains those that were skipped
    assert watched.is_silent_about("ModelStale")


@pytest.mark.monitoring
def test_a_part_and_a_target_that_are_away_are_reported(watched):
    watched.forget()
    jobs = watched.project.root / "orchestrate" / "jobs.meltano.yml"
    before = jobs.read_text()
    jobs.write_text(f"{before}  - not a schedule")
    if shutil.which(EXPORTER):
        watched.kill("warehouse")
    message = watched.says("TidemarkPartUnreadable", "schedules")
    assert "runbook.md#exporter" in message.text
    jobs.write_text(before)
    watched.says("TidemarkPartUnreadable", resolved=True)
    if shutil.which(EXPORTER):
        watched.says("TargetDown", "(postgres)")
        watched.start_database_exporter("warehouse")
        watched.says("TargetDown", resolved=True)


@pytest.mark.monitoring
def test_a_warehouse_that_is_away_is_one_message_and_nothing_is_said_to_be_well(watched):
    watched.forget()
    with scheduled(watched, load="* * * * * */4"):
        watched.says("StreamNotStarted")
        watched.kill_server("warehouse")
        assert "runbook.md#unreachable" in watched.says("DatabaseAway", "of the warehouse has not answered").text
        # longer than an alert outlasts its condition
        time.sleep(7)
        watched.project.tidemark("up")
        watched.says("DatabaseAway", resolved=True)
        assert {message.alert for message in watched.messages()} == {"StreamNotStarted", "DatabaseAway"}
        wait_for(lambda: watched.firing("StreamNotStarted"), "StreamNotStarted")
        assert len([message for message in watched.messages() if message.alert == "StreamNotStarted"]) == 1
        assert load(watched) == 0
    watched.says("StreamNotStarted", resolved=True)


@pytest.mark.monitoring
@pytest.mark.skipif(not shutil.which(EXPORTER), reason="needs postgres_exporter (Debian: prometheus-postgres-exporter)")
def test_a_killed_source_is_one_message_though_its_runs_fail(watched):
    watched.forget()
    watched.kill_server("source")
    # as a server of one's own, which `tidemark run` does not start
    parts = psycopg.conninfo.conninfo_to_dict(watched.project.urls["source"])
    names = {"HOST": "127.0.0.1", "USER": parts["user"], "PASSWORD": parts["password"], "DATABASE": parts["dbname"]}
    assert load(watched, {f"TAP_POSTGRES_{name}": str(value) for name, value in names.items()}) != 0
    assert "runbook.md#unreachable" in watched.says("DatabaseAway", "of the source (postgres) has not answered").text
    watched.project.tidemark("up")
    watched.says("DatabaseAway", resolved=True)
    assert load(watched) == 0
    assert watched.is_silent_about("StreamFailed")
