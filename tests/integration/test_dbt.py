"""dbt as this project starts it: one run at a time per warehouse, and nothing left running."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import time
from typing import TYPE_CHECKING

import psutil
import pytest

from tests import programs
from tests.integration.stages import make_checkout

if TYPE_CHECKING:
    from collections.abc import Iterator

    import psycopg

    from tests.integration.checkout import Checkout

RUN = ("invoke", "dbt-postgres:run", "--select", "fct_orders")


@pytest.fixture(scope="module")
def project() -> Iterator[Checkout]:
    yield from make_checkout(stage="built")


@pytest.fixture
def blocker(project: Checkout) -> Iterator[psycopg.Connection]:
    """A session with a lock that lets no run finish until it is closed."""
    with project.connect("warehouse") as connection:
        connection.autocommit = False
        connection.execute("lock table marts.fct_orders in access exclusive mode")
        yield connection


def blocked(project: Checkout, *, but: int = 0) -> tuple[subprocess.Popen[str], psutil.Process, int]:
    """Start a run that waits for the blocker; return it, its dbt process, and its session's pid on the server."""
    run = project.start(*RUN, program="meltano")
    waiting = "select pid from pg_stat_activity where application_name like 'dbt %' and wait_event_type = 'Lock'"
    waiting += f" and pid <> {but}"
    for _ in range(300):
        if sessions := project.rows("warehouse", waiting):
            break
        assert run.poll() is None, run.communicate()[0]
        time.sleep(0.1)
    (dbt,) = [
        each
        for each in psutil.Process(run.pid).children(recursive=True)
        if "tidemark-dbt" in str(programs.command_line(each))
    ]
    return run, dbt, sessions[0][0]


def alive(project: Checkout, session: int) -> bool:
    return project.rows("warehouse", f"select from pg_stat_activity where pid = {session}") != []


@pytest.mark.long
def test_a_second_run_says_which_run_excludes_it_and_has_its_own_exit_status(project, blocker):
    run, _, _ = blocked(project)
    second = project.run("meltano", *RUN)
    assert second.returncode == os.EX_TEMPFAIL
    said = second.stdout + second.stderr
    assert "Another run is building the models of warehouse, schema marts (pid " in said
    assert "Traceback" not in said
    blocker.rollback()
    run.communicate(timeout=60)
    assert run.returncode == 0


def test_a_file_that_dbt_can_not_parse_has_a_code_of_its_own(project):
    model = project.root / "transform" / "models" / "unparsed.sql"
    model.write_text("select * from {{ ref('nowhere') }}")
    try:
        printed, code = project.dbt_failure("run", "--select", "fct_orders")
    finally:
        model.unlink()
    assert code == "dbt_project_invalid"
    assert "depends on a node named 'nowhere' which was not found" in printed


@pytest.mark.long
def test_the_pipeline_says_so_too_and_commands_that_only_read_are_not_excluded(project, blocker):
    run, _, _ = blocked(project)
    pipeline = project.run("tidemark", "pipeline")
    assert pipeline.returncode == os.EX_TEMPFAIL
    assert "Another run is building the models" in pipeline.stderr
    assert project.run("meltano", "invoke", "dbt-postgres:list").returncode == 0
    blocker.rollback()
    run.communicate(timeout=60)
    assert run.returncode == 0


@pytest.mark.long
def test_the_next_run_ends_what_a_killed_run_left_on_the_server(project, blocker):
    run, dbt, session = blocked(project)
    dbt.kill()
    run.communicate(timeout=60)
    assert run.returncode
    assert alive(project, session), "a server continues a query whose client is gone"
    again, _, other = blocked(project, but=session)
    assert not alive(project, session)
    assert alive(project, other)
    blocker.rollback()
    again.communicate(timeout=60)
    assert again.returncode == 0


@pytest.mark.long
def test_a_terminated_run_cancels_its_queries(project, blocker):
    run, dbt, session = blocked(project)
    dbt.terminate()
    printed, _ = run.communicate(timeout=60)
    assert run.returncode == 128 + signal.SIGTERM, printed
    assert "Traceback" not in printed
    assert not alive(project, session)
    blocker.rollback()


@pytest.mark.long
def test_a_run_whose_parent_was_killed_ends_by_itself(project, blocker):
    run, dbt, session = blocked(project)
    run.kill()
    run.communicate()
    psutil.wait_procs([dbt], timeout=20)
    assert not dbt.is_running()
    assert not alive(project, session)
    blocker.rollback()
    assert project.run("meltano", *RUN).returncode == 0


@pytest.mark.long
@pytest.mark.parametrize("as_after", ["a pull", "a pull that took one away", "a move of the project"])
def test_a_run_installs_the_packages_that_are_missing(project, as_after):
    packages = project.root / "transform" / "dbt_packages"
    if as_after == "a pull that took one away":
        (packages / "gone").mkdir()
        (packages / "gone" / "dbt_project.yml").write_text("name: gone\nversion: '1.0'\n")
    else:
        shutil.rmtree(packages)
    if as_after == "a move of the project":
        packages.mkdir()
        (packages / "in_place").symlink_to(project.root / "elsewhere")
    done = project.dbt("parse")
    assert done.returncode == 0, done.stdout
    assert {path.parent.name for path in packages.glob("*/dbt_project.yml")} == {"in_place", "tidemark", "shop"}


@pytest.mark.long
def test_macros_are_compiled_once_and_damaged_copies_again(project):
    kept = project.root / ".meltano" / "dbt" / "target" / "compiled_macros"

    def run() -> None:
        """Build a view in a new process: one that the tests fork has compiled macros already."""
        command = [programs.DBT, "run", "--select", "stg_orders"]
        environment = project.dbt_environment()
        done = subprocess.run(
            command, cwd=project.root, env=environment, stdin=subprocess.DEVNULL, capture_output=True, check=False
        )
        assert done.returncode == 0, done.stdout

    def build() -> dict[str, tuple[int, bytes]]:
        """Build; return what is kept of each macro."""
        run()
        return {file.name: (file.stat().st_mtime_ns, file.read_bytes()) for file in kept.iterdir()}

    first = build()
    assert len(first) > 20
    assert build() == first
    for file in kept.iterdir():
        file.write_bytes(file.read_bytes()[:40])
    again = {name: code for name, (_, code) in build().items() if len(code) > 40}
    assert len(again) > 10
    assert again == {name: first[name][1] for name in again}
    # a place that can't be used
    shutil.rmtree(kept)
    kept.write_text("")
    run()
    kept.unlink()


@pytest.mark.long
def test_the_first_build_in_a_developers_schemas_runs_with_its_tests(project):
    built = project.dbt("build", "--select", "+fct_sales", "+fct_orders", env={"DBT_SCHEMA_PREFIX": "own_"})
    assert built.returncode == 0, built.stdout
    assert len(re.findall(r"PASS [\w.:]+ \.* ", built.stdout)) > 50


@pytest.mark.long
def test_tables_of_a_newer_release_are_not_touched_and_the_build_is_refused(project):
    with project.connect("warehouse") as connection:
        connection.execute("comment on table marts._tidemark_models is 'Kept by Tidemark: version 99'")
        try:
            done = project.dbt("run", "--select", "dim_dates")
        finally:
            connection.execute("comment on table marts._tidemark_models is 'Kept by Tidemark: version 4'")
    assert done.returncode == 2
    assert "marts._tidemark_models has version 99, and this release knows 4" in done.stdout


@pytest.mark.long
def test_tables_of_an_older_release_are_migrated_and_builds_go_on(project):
    columns = "changed_xid, remade_xid, read_snapshot, keys_total, seconds_per_key, seconds_full, preparation"
    with project.connect("warehouse") as connection:
        connection.execute(f"alter table marts._tidemark_models drop {columns.replace(', ', ', drop ')}")
        connection.execute("comment on table marts._tidemark_models is null")
    assert project.dbt("run").returncode == 0
    version = "select obj_description('marts._tidemark_models'::regclass, 'pg_class')"
    assert project.rows("warehouse", version) == [("Kept by Tidemark: version 4",)]
    noted = "select model from marts._tidemark_models where read_snapshot is null"
    assert project.rows("warehouse", noted) == []
    facts = "select inserted + updated + deleted from marts._tidemark_models where model = 'fct_sales'"
    assert project.rows("warehouse", facts) == [(0,)], "the rows were right and stay"


@pytest.mark.long
def test_the_log_of_model_runs_reaches_back_90_days(project):
    log = "select count(*) from marts._tidemark_model_runs where run_id in ('at 91 days', 'at 89 days')"
    with project.connect("warehouse") as connection:
        connection.execute(
            "insert into marts._tidemark_model_runs (run_id, invocation_id, model, outcome, started_at, seconds) "
            "select 'at ' || days || ' days', gen_random_uuid()::text, 'dim_dates', 'success', "
            "now() - make_interval(days => days), 1 "
            "from unnest('{89, 91}'::int[]) as days"
        )
        connection.execute("alter table raw.products rename column sku to code")
    assert project.rows("warehouse", log) == [(2,)]
    # one of these fails, and the other never starts; its record must expire too
    assert project.dbt("run", "--select", "stg_products", "dim_products").returncode == 1
    assert project.rows("warehouse", log) == [(1,)]
    assert project.rows(
        "warehouse",
        "select count(*) from marts._tidemark_model_runs where outcome = 'skipped' and started_at between "
        "now() - interval '1 hour' and now()",
    ) == [(1,)]
    with project.connect("warehouse") as connection:
        connection.execute("alter table raw.products rename column code to sku")
    project.build("--select", "stg_products")
