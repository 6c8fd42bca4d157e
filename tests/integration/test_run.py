"""`tidemark run` as a scheduler starts it: its report, its parent, and where it writes."""

from __future__ import annotations

import json
import os
import re
import subprocess
import tempfile
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
import pytest

from singer_postgres.core import advisory_locks
from tests import advisory, programs
from tests.integration.stages import make_checkout
from tests.singer.test_crashes import wait_for

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.integration.checkout import Checkout

LOAD = ("tap-postgres", "target-postgres")


@pytest.fixture(scope="module")
def project() -> Iterator[Checkout]:
    """A project with a loaded shop."""
    yield from make_checkout(stage="loaded")


def report(project: Checkout, *options: str) -> dict[str, Any]:
    printed = project.tidemark("run", *LOAD, "--json", *options)
    lines = [json.loads(line) for line in printed.splitlines()]
    assert all({"level", "text"} == set(line) for line in lines[:-1])
    return lines[-1]["report"]


@pytest.mark.long
def test_the_report_counts_rows_and_rows_moved_since_an_earlier_report(project):
    first = report(project)
    assert (first["error"], first["rows_moved"]) == (None, 0)
    project.tidemark("demo", "change", "--rows", "50", "--seed", "1")
    project.extract_and_load()
    idle = report(project)
    assert idle["rows_moved"] == 0
    # the latest rows are read again
    assert idle["source_costs"]["public-orders"]["source_bytes"] > 0
    # rows that another run moved
    since = report(project, f"--moved-since={first['as_of']}")
    moved = "select sum(rows_inserted + rows_updated + rows_deleted)::int from raw._tidemark_runs"
    ((wanted,),) = project.rows("warehouse", f"{moved} where ended_at > '{first['as_of']}'")
    assert since["rows_moved"] == wanted > 0
    assert report(project, f"--moved-since={since['as_of']}")["rows_moved"] == 0


def test_an_unreachable_side_ends_a_run_with_its_own_status_and_one_line(project):
    away = {"TAP_POSTGRES_HOST": "127.0.0.1", "TAP_POSTGRES_PORT": "1"}
    done = project.run("tidemark", "run", *LOAD, env=away)
    assert done.returncode == os.EX_UNAVAILABLE
    (line,) = done.stderr.strip().splitlines()
    assert "Cannot connect to the source database 'shop' on 127.0.0.1:1" in line


@pytest.mark.long
def test_a_setting_of_a_wrong_form_ends_a_run_with_the_status_of_check(project):
    wrong = {"TAP_POSTGRES_MAX_SOURCE_MB_PER_S": "fast"}
    done = [project.run("tidemark", *command, env=wrong) for command in (("check",), ("run", *LOAD))]
    assert [each.returncode for each in done] == [os.EX_CONFIG] * 2
    for each in done:
        assert "max_source_mb_per_s" in each.stderr


def test_log_lines_that_elasticsearch_does_not_take_end_the_shipping_with_their_code(project):
    done = project.run("tidemark", "logs", "ship", "--once", env={"TIDEMARK_ELASTICSEARCH_URL": "http://127.0.0.1:1"})
    assert done.returncode == os.EX_TEMPFAIL
    assert "Not all lines were sent" in done.stderr
    assert project.logged_code() == "logs_undelivered"


@pytest.mark.long
def test_the_history_says_why_streams_failed_that_the_target_never_saw(project):
    runs = "select outcome, error_code, count(*) from raw._tidemark_runs where run_id = '{}' group by 1, 2"
    away, gone = "00000000-0000-0000-0000-000000000001", "00000000-0000-0000-0000-000000000002"
    project.extract_and_load()
    totals = "select failed from raw._tidemark_stream_totals where stream = 'public-customers'"
    # other tests of this file fail runs too
    ((before,),) = project.rows("warehouse", totals)
    # before Meltano starts
    project.run(
        "tidemark", "run", *LOAD, "--run-id", away, env={"TAP_POSTGRES_HOST": "localhost", "TAP_POSTGRES_PORT": "1"}
    )
    assert project.rows("warehouse", runs.format(away)) == [("failed", "source_unreachable", 4)]
    # one stream, in the tap
    with project.connect("source") as connection:
        connection.execute("alter table customers rename to clients")
    try:
        printed = project.run("tidemark", "run", *LOAD, "--run-id", gone).stdout
    finally:
        with project.connect("source") as connection:
            connection.execute("alter table clients rename to customers")
    assert "public-customers: failed\n" in printed
    # it reads the newest rows again
    assert re.search(r"public-products: \d+ read, 0 new", printed)
    assert project.rows("warehouse", f"{runs.format(gone)} order by 1") == [
        ("failed", "table_missing", 1),
        ("succeeded", None, 3),
    ]
    project.extract_and_load()
    ((after,),) = project.rows("warehouse", totals)
    assert Counter(after) - Counter(before) == {"source_unreachable": 1, "table_missing": 1}


@pytest.mark.long
def test_a_run_that_fails_while_another_loads_says_nothing_about_what_that_one_loads(project):
    failed, loading = "00000000-0000-0000-0000-000000000003", "00000000-0000-0000-0000-000000000004"
    project.extract_and_load()
    loads = advisory_locks.key("tidemark load", "raw", "orders")
    with project.connect("warehouse") as other, advisory.held(other, loads):
        other.execute(
            "insert into raw._tidemark_runs (source, stream, run_id, table_name) select distinct on (stream) source, "
            "stream, %s, table_name from raw._tidemark_runs where stream in ('public-orders', 'public-products')",
            [loading],
        )
        away = {"TAP_POSTGRES_HOST": "localhost", "TAP_POSTGRES_PORT": "1"}
        project.run("tidemark", "run", *LOAD, "--run-id", failed, env=away)
    runs = "select stream, outcome from raw._tidemark_runs where run_id = '{}' order by 1"
    assert project.rows("warehouse", runs.format(loading)) == [
        ("public-orders", "running"),
        ("public-products", "running"),
    ]
    # nobody holds the lock of products
    assert project.rows("warehouse", runs.format(failed)) == [("public-products", "failed")]
    project.extract_and_load()


@pytest.mark.long
def test_an_attended_run_ends_with_all_its_processes_when_its_parent_is_gone(project):
    with project.connect("warehouse") as connection, connection.transaction():
        connection.execute("lock table raw.orders in access exclusive mode")
        run = subprocess.Popen(
            project.command("tidemark", "run", *LOAD, "--attended"),
            cwd=project.root,
            env=project.env,
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )
        me = psutil.Process(run.pid)
        # the target is blocked: it requests the table again and again
        wait_for(
            lambda: any(
                "tidemark-target" in " ".join(programs.command_line(each)) for each in me.children(recursive=True)
            ),
            120,
        )
        started = me.children(recursive=True)
        # the kernel does this when the parent dies
        assert run.stdin
        run.stdin.close()
        assert run.wait(timeout=60) == 143
        assert run.stderr
        run.stderr.close()
        assert not [each for each in started if each.is_running() and each.status() != psutil.STATUS_ZOMBIE]


@pytest.mark.long
def test_a_run_with_a_work_directory_writes_nothing_into_the_project(project):
    def files() -> set[Path]:
        return {path for path in project.root.rglob("*") if "postgres" not in path.parts and "pycache" not in str(path)}

    before = files()
    sides = {f"{side}_POSTGRES_HOST": "127.0.0.1" for side in ("TAP", "TARGET")}
    with tempfile.TemporaryDirectory() as directory:
        work = Path(directory)
        own = {**sides, "DBT_POSTGRES_USER": "tidemark_transformer", "TIDEMARK_WORK_DIR": directory}
        done = project.run("tidemark", "run", *LOAD, "dbt-postgres:run", env=own)
        assert done.returncode == 0, done.stdout + done.stderr
        assert (work / "logs" / "meltano.jsonl").stat().st_size > 0
        assert (work / ".meltano" / "meltano.db").exists()
        assert (work / ".meltano" / "dbt" / "good" / "manifest.json").exists()
        assert (work / ".meltano" / "run").stat().st_mode & 0o077 == 0
        # neither does Meltano's own command line, which uses the same state
        assert "tap-postgres-to-target-postgres" in project.tidemark("meltano", "state", "list", env=own)
        assert "staging.stg_orders" in project.tidemark("trace", "public-orders", "1", env=own)
    assert files() == before


def test_a_work_directory_that_can_not_be_created_is_named(project):
    refusal = project.refusal("run", *LOAD, env={"TIDEMARK_WORK_DIR": "/proc/nowhere"})
    assert refusal.startswith("error: TIDEMARK_WORK_DIR is /proc/nowhere, where /proc/nowhere")
