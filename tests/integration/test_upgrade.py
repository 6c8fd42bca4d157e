"""A running project takes the present release along with its settings, its state, its tables and its marts."""

from __future__ import annotations

import io
import json
import os
import re
import shutil
import subprocess
import tarfile
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.conftest import AS_CLONED, REPOSITORY, memory
from tests.integration.checkout import Checkout
from tests.integration.marts import (
    BY_KEY,
    FACTS_THAT_DIFFER,
    UNSOLD,
    assert_as_a_full_build_has_them,
    keys,
)
from tests.integration.stages import OURS, SCALE, copy_files, make_checkout
from tests.ports import free_ports

if TYPE_CHECKING:
    from collections.abc import Iterator

# the last commit before tap, target and utility got a common core, and errors a code
BEFORE = "744a098ab27d49c9eaf306a12a42ea94183bd575"
# the last commit at which the materializations were macros of the project, under other names
BEFORE_THE_PACKAGE = "cea729445c098c5c2c19f9a0d977fbf686e6a898"
# the last commit at which models said themselves what an incremental build reads
BEFORE_KEYS = "c5eef5752aba872dd7776e61ac755c32cec80276"
VISITS = 12_000
SETTINGS = """\
TAP_POSTGRES_PORT={}
TARGET_POSTGRES_PORT={}
"""
# a table of the user's own, small chunks, and every stream by its update time
MORE_SETTINGS = """\
TAP_POSTGRES_CHUNK_SIZE_MB=1
TAP_POSTGRES__SELECT=["public-*.*"]
TAP_POSTGRES__METADATA={"public-*": {"replication-method": "INCREMENTAL", "replication-key": "updated_at"}}
"""
# what the page says to run once
PAGE = (REPOSITORY / "docs/how-to/upgrading.md").read_text().partition("## Models that are built by key")[2]
LISTING, *STATEMENTS = re.findall(r'psql warehouse -c "(.+)"', PAGE)
(DBT_ARGUMENTS,) = re.findall(r'make dbt ARGS="(.+)"', PAGE)
RUNS = "select to_jsonb(run) - 'error_code' from raw._tidemark_runs run"
IN_PLACE_TABLES = """
    select relname, oid from pg_class
    where relnamespace = 'marts'::regnamespace and relkind in ('r', 'p') and relname !~ '^_tidemark|^mart_'
    order by relname
"""
FEES = """
    select shipping_fee, count(*) from public.analysts where shipping_fee in (111, 222, 333) group by 1 order by 1
"""
LATEST_RUN = """
    select distinct on (stream) stream, bookmark_before, rows_read, rows_inserted + rows_updated
    from raw._tidemark_runs where outcome = 'succeeded' order by stream, started_at desc
"""


def _git(*arguments: str) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(["git", *arguments], cwd=REPOSITORY, capture_output=True, check=False)


class Project(Checkout):
    """A project with environments of its own, which programs run from."""

    def run(self, *arguments: str, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
        return self._run(self.command(*arguments), env)

    def make(self, *arguments: str) -> str:
        done = self._run(["make", *arguments])
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def _run(self, command: list[str], env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command,
            cwd=self.root,
            env={**self.env, **(env or {})},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=1200,
            check=False,
        )

    def do(self, side: str, *statements: str) -> None:
        with self.connect(side) as connection:
            for statement in statements:
                connection.execute(statement)


@pytest.fixture
def project() -> Iterator[Project]:
    """A project of the commit before, installed, with free ports in its .env."""
    archive = _git("archive", BEFORE)
    if archive.returncode:
        pytest.skip(f"needs the git history back to {BEFORE[:7]}, which a shallow clone lacks")
    root = Path(tempfile.mkdtemp(prefix="tidemark-test-", dir=memory()))
    root.chmod(0o755)
    env = {name: value for name, value in os.environ.items() if not name.startswith((*OURS, "MAKE"))}
    made = Project(root, env)
    try:
        with tarfile.open(fileobj=io.BytesIO(archive.stdout)) as files:
            files.extractall(root, filter="data")
        (root / ".env").write_text(SETTINGS.format(*free_ports(2)))
        made.make("setup")
        yield made
    finally:
        made.kill_servers()
        shutil.rmtree(root)


def run_before(project: Project) -> None:
    """Run the whole job; then load changes, and a part of a further table."""
    project.make("pipeline", f"SCALE={SCALE}")
    with (project.root / ".env").open("a") as settings:
        settings.write(MORE_SETTINGS)
    project.do(
        "source",
        "update orders set shipping_fee = 111, updated_at = now() where order_id <= 20",
        "create table visits (visit_id bigint primary key, note text, updated_at timestamptz not null default now())",
        f"insert into visits select i, repeat('x', 500) from generate_series(1, {VISITS}) i",
    )
    # the last rows of the table can't be loaded, and so its first load is not complete
    project.do(
        "warehouse",
        f"create table raw.visits (visit_id bigint primary key constraint early check (visit_id < {VISITS - 50}), "
        "note text, updated_at timestamptz)",
        "alter table raw.visits owner to tidemark_loader",
    )
    failed = project.run("tidemark", "run", "tap-postgres", "target-postgres")
    assert 'violates check constraint "early"' in failed.stderr, failed.stdout + failed.stderr
    project.do("warehouse", "alter table raw.visits drop constraint early")


def upgrade(project: Project) -> None:
    """Bring the files to the present state, as git does, and install what that needs."""
    for name in _git("ls-tree", "-r", "-z", "--name-only", BEFORE).stdout.decode().split("\0"):
        (project.root / name).unlink() if name else None
    copy_files(project.root)
    project.make("setup")
    # embedded servers run the SQL of the roles when they start
    project.tidemark("up")
    project.do("warehouse", *STATEMENTS)
    project.make("dbt", f"ARGS={DBT_ARGUMENTS}")


@pytest.mark.long
@pytest.mark.timeout(3600)
def test_an_upgrade_takes_settings_state_tables_and_marts_of_a_running_project_along(project):
    run_before(project)
    assert_upgrade_goes_on_from_there(project)


def assert_upgrade_goes_on_from_there(project: Project) -> None:
    settings = (project.root / ".env").read_text()
    runs = [run for (run,) in project.rows("warehouse", RUNS)]
    assert {"succeeded", "failed"} == {run["outcome"] for run in runs}
    reached = dict(
        project.rows("warehouse", "select stream, bookmark from raw._tidemark_state where bookmark is not null")
    )
    assert len(reached) == 4
    ((loaded,),) = project.rows("warehouse", "select count(*) from raw.visits")
    assert 0 < loaded < VISITS
    kept = project.rows("warehouse", IN_PLACE_TABLES)
    project.do("warehouse", "create view public.analysts as select * from marts.fct_orders")

    upgrade(project)
    # a release may add the password of a role of its own
    assert (project.root / ".env").read_text().startswith(settings)
    assert "public-orders" in project.tidemark("status"), "before the first run, with tables of the release before"
    project.tidemark("check")
    project.do("source", "update orders set shipping_fee = 222, updated_at = now() where order_id between 31 and 37")
    project.make("pipeline")

    after = {stream: rest for stream, *rest in project.rows("warehouse", LATEST_RUN)}
    assert {stream: after[stream][0] for stream in reached} == reached, "each stream goes on from its bookmark"
    assert after["public-visits"][1:] == [VISITS - loaded, VISITS - loaded], "the first load goes on"
    assert {stream: changed for stream, (_, _, changed) in after.items() if stream in reached} == {
        **dict.fromkeys(reached, 0),
        "public-orders": 7,
    }
    assert after["public-orders"][1] < 100, "only rows near the bookmark are read"
    for found in json.loads(project.tidemark("reconcile", "--json")):
        assert (found["missing"], found["different"], found["extra"]) == (0, 0, 0), found

    assert project.rows("warehouse", IN_PLACE_TABLES) == kept, "marts stay the tables that they were"
    assert project.rows("warehouse", FEES) == [(111, 20), (222, 7)]
    assert project.rows("warehouse", FACTS_THAT_DIFFER) == []
    assert project.rows("warehouse", UNSOLD) == [(0,)]

    now = [run for (run,) in project.rows("warehouse", RUNS)]
    assert len(now) == len(runs) + 5
    stayed = [run for run in runs if any(run.items() <= other.items() for other in now)]
    assert stayed == runs, "old rows stay as they are; columns are added"
    assert project.rows("warehouse", "select count(*) from raw._tidemark_runs where error_code is not null") == [(0,)]
    assert "public-visits" in project.tidemark("status")
    project.tidemark("check")
    project.tidemark("state", "check")
    exported = (AS_CLONED / "orchestrate" / "schedules.json").read_text()
    assert project.tidemark("schedules") == exported


def project_of(commit: str) -> Iterator[Checkout]:
    """A loaded project whose models are those of an earlier commit, and built."""
    archive = _git("archive", commit, "transform")
    if archive.returncode:
        pytest.skip(f"needs the git history back to {commit[:7]}, which a shallow clone lacks")
    for project in make_checkout(stage="loaded"):
        shutil.rmtree(project.root / "transform")
        with tarfile.open(fileobj=io.BytesIO(archive.stdout)) as files:
            files.extractall(project.root, filter="data")
        project.build("--no-partial-parse")
        yield project


def take_the_present_models(project: Checkout) -> None:
    shutil.rmtree(project.root / "transform")
    copy_files(project.root)


@pytest.mark.long
@pytest.mark.parametrize("commit", [BEFORE_THE_PACKAGE, BEFORE_KEYS], ids=["macros of the project", "the package"])
def test_marts_of_the_release_before_keys_are_upgraded_as_the_page_says(commit):
    for project in project_of(commit):
        before = project.rows("warehouse", IN_PLACE_TABLES)
        versions = project.rows("warehouse", "select count(*) from intermediate.customers_snapshot")
        with project.connect("warehouse") as connection:
            connection.execute("create view public.analysts as select * from marts.fct_orders")
            connection.execute("create view public.segments as select customer_key, segment from marts.dim_customers")
            connection.execute("create view public.daily as select revenue from marts.mart_daily_sales")
        with project.connect("source") as connection:
            connection.execute("update orders set shipping_fee = 222, updated_at = now() where order_id in (5, 6)")
        project.extract_and_load()
        take_the_present_models(project)

        # without the page's steps, nothing is changed
        printed, _ = project.dbt_failure("run")
        assert 'dim_customers" has segment (text), which the model lacks' in printed
        assert "Run it once with --full-refresh" in printed
        listed = {str(name).removeprefix("public.") for (name,) in project.rows("warehouse", LISTING)}
        assert listed >= {"segments", "daily"}
        with project.connect("warehouse") as connection:
            connection.execute("drop view public.daily")
            for statement in STATEMENTS:
                connection.execute(statement.encode())
        printed, _ = project.dbt_failure(*DBT_ARGUMENTS.split())
        assert "view public.segments" in printed
        with project.connect("warehouse") as connection:
            connection.execute("drop view public.segments")
        done = project.dbt(*DBT_ARGUMENTS.split())
        assert done.returncode == 0, done.stdout

        project.build()
        assert project.rows("warehouse", IN_PLACE_TABLES) == before, "the marts stay the tables that they were"
        assert project.rows("warehouse", FEES) == [(222, 2)]
        assert project.rows("warehouse", FACTS_THAT_DIFFER) == []
        assert project.rows("warehouse", UNSOLD) == [(0,)]
        assert_as_a_full_build_has_them(project)
        assert keys(project.build()) == dict.fromkeys(BY_KEY, 0)
        assert project.rows("warehouse", "select count(*) from intermediate.customers_snapshot") == versions
        with project.connect("source") as connection:
            connection.execute("update customers set city = 'Elsewhere', updated_at = now() where customer_id = 3")
        project.extract_and_load()
        project.build()
        assert project.rows(
            "warehouse",
            "select count(*), count(*) filter (where loaded_xid is null) from intermediate.customers_snapshot "
            "where city = 'Elsewhere' and dbt_valid_to is null",
        ) == [(1, 1)]
        tested = project.dbt("test")
        assert tested.returncode == 0, tested.stdout
