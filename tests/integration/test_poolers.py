"""A whole job through a session pool, and each part refused behind a transaction pool."""

from __future__ import annotations

import json
import os
import subprocess
from typing import TYPE_CHECKING

import pytest

from singer_postgres.core import advisory_locks
from tests import advisory
from tests.conftest import REPOSITORY
from tests.integration import pgbouncer
from tests.integration.stages import make_checkout

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.integration.checkout import Checkout

pytestmark = pgbouncer.wanted
AIRFLOW = REPOSITORY / ".meltano" / "utilities" / "airflow" / "venv" / "bin" / "python"
REFUSED = "is a pooler that lends a session for one transaction, and this program needs a session that lasts: set "
LOAD = ("tap-postgres", "target-postgres")


@pytest.fixture(scope="module")
def project() -> Iterator[Checkout]:
    for checkout in make_checkout():
        checkout.tidemark("demo", "load", "--scale", "0.002")
        with checkout.connect("warehouse") as connection:
            connection.execute("create database untouched")
            connection.execute("grant create on database untouched to tidemark_loader, tidemark_transformer")
        for side in ("source", "warehouse"):
            with checkout.connect(side) as connection:
                # settings at the start of a session must get through
                connection.execute("alter role all set timezone = 'Asia/Tokyo'; alter role all set datestyle = 'SQL'")
        yield checkout


@pytest.fixture(scope="module")
def sessions(project: Checkout) -> Iterator[dict[str, str]]:
    """Variables that lead through a session pool."""
    with pgbouncer.pooling(project, "session") as port:
        yield {**through(port, "TAP"), **through(port, "TARGET"), "DBT_POSTGRES_USER": "tidemark_transformer"}


@pytest.fixture(scope="module")
def transactions(project: Checkout) -> Iterator[int]:
    with pgbouncer.pooling(project, "transaction") as port:
        yield port


def through(port: int, side: str) -> dict[str, str]:
    return {f"{side}_POSTGRES_HOST": "127.0.0.1", f"{side}_POSTGRES_PORT": str(port)}


def direct(project: Checkout, side: str) -> dict[str, str]:
    return through(int(project.env[f"{side}_POSTGRES_PORT"]), side)


def untouched(project: Checkout, port: int) -> bool:
    """Whether nothing was written, set or locked behind a pool."""
    with project.connect("warehouse", "untouched") as connection:
        made = connection.execute("select relname from pg_class where oid >= 16384").fetchall()
    for side in ("source", "warehouse"):
        assert project.rows(side, "select * from pg_locks where locktype = 'advisory'") == []
    left = []
    for role, database in (
        ("tidemark_reader", "shop"),
        ("tidemark_loader", "untouched"),
        ("tidemark_transformer", "untouched"),
    ):
        with pgbouncer.connect(project, port, role, database) as connection:
            left += connection.execute(
                "select name, setting from pg_settings where source = 'session' and name not in "
                "('application_name', 'client_encoding', 'DateStyle', 'TimeZone', 'standard_conforming_strings')"
            ).fetchall()
    return not made and not left


@pytest.mark.parametrize("side", [pytest.param("TAP", marks=pytest.mark.long), "TARGET"])
def test_a_load_behind_a_pool_of_transactions_is_refused_and_writes_nothing(project, transactions, side):
    other = "TARGET" if side == "TAP" else "TAP"
    env = {**direct(project, other), **through(transactions, side), "TARGET_POSTGRES_DATABASE": "untouched"}
    # refused by tap or target itself, and by the command that would start them
    done = project.run("meltano", "run", *LOAD, env={**env, "MELTANO_RUN_FORCE": "1"})
    said = [line for line in (done.stdout + done.stderr).splitlines() if REFUSED in line and f"{side}_POSTGRES" in line]
    assert done.returncode
    assert said
    assert "Traceback" not in done.stdout + done.stderr
    line = project.refusal("run", *LOAD, env=env)
    assert line.startswith(f"error: 127.0.0.1:{transactions} {REFUSED}{side}_POSTGRES_HOST and _PORT to the server")
    assert untouched(project, transactions)


@pytest.mark.parametrize(
    "command",
    [
        ("reconcile",),
        ("reconcile", "--repair"),
        ("state", "check"),
        ("state", "rewind"),
        ("backup",),
        ("trace", "public-orders", "1"),
        ("backfill", "public-orders", "--all"),
    ],
    ids=" ".join,
)
def test_a_command_behind_a_pool_of_transactions_is_refused_and_writes_nothing(project, transactions, command):
    env = {**direct(project, "TAP"), **through(transactions, "TARGET"), "TARGET_POSTGRES_DATABASE": "untouched"}
    assert f"{REFUSED}TARGET_POSTGRES_HOST" in project.refusal(*command, env=env)
    assert untouched(project, transactions)


@pytest.mark.parametrize("command", [("build",), ("source", "freshness"), ("docs", "generate")], ids=" ".join)
def test_dbt_behind_a_pool_of_transactions_is_refused_and_writes_nothing(project, transactions, command):
    env = {**direct(project, "TARGET"), **through(transactions, "DBT"), "TARGET_POSTGRES_DATABASE": "untouched"}
    printed, code = project.dbt_failure(*command, env={**env, "DBT_POSTGRES_USER": "tidemark_transformer"})
    assert code == "pooler_without_session"
    (line,) = (line for line in printed.splitlines() if REFUSED in line)
    assert line.endswith("set DBT_POSTGRES_HOST and _PORT to the server itself, or to a pool with pool_mode = session.")
    assert untouched(project, transactions)


def test_meltanos_state_behind_a_pool_of_transactions_is_refused(project, transactions):
    login = f"tidemark_loader:{pgbouncer.password(project, 'tidemark_loader')}"
    state = {"MELTANO_DATABASE_URI": f"postgresql+psycopg://{login}@127.0.0.1:{transactions}/untouched"}
    assert f"{REFUSED}MELTANO_DATABASE_URI to the server itself" in project.refusal("run", *LOAD, env=state)
    assert untouched(project, transactions)


def test_status_names_a_pooler_in_between(project, transactions):
    env = {**direct(project, "TAP"), **through(transactions, "TARGET")}
    facts = [json.loads(line) for line in project.tidemark("status", "--json", env=env).splitlines()]
    assert "pool_mode = session" in facts[1]["state"]
    assert facts[0]["state"].startswith("up")


def test_options_that_a_pooler_refuses_are_named(project, sessions):
    line = project.refusal("run", *LOAD, env={**sessions, "PGOPTIONS": "-c work_mem=1MB"})
    assert "unsupported startup parameter: options; unset PGOPTIONS, or let the pooler accept it" in line


def test_a_pool_of_statements_is_refused(project):
    with pgbouncer.pooling(project, "statement") as port:
        line = project.refusal("run", *LOAD, env={**through(port, "TAP"), **direct(project, "TARGET")})
    assert "is a pooler that lends a session for one statement" in line


@pytest.mark.long
def test_a_whole_job_through_a_session_pool_has_the_right_rows(project, sessions):
    project.tidemark("run", *LOAD, env=sessions)
    project.tidemark("demo", "change", "--rows", "50")
    project.tidemark("run", *LOAD, "dbt-postgres:run", env=sessions)
    # no replication key leads to the rows that the change deleted
    project.tidemark("reconcile", "--repair", env=sessions)
    # past the pool
    project.tidemark("reconcile")
    assert project.rows("warehouse", "select count(*) from marts.fct_orders where ordered_at is not null")[0][0] > 900


def test_records_are_committed_under_the_lock_of_a_session_that_a_pool_keeps(project, sessions):
    own = {"TAP_POSTGRES_USE_COPY": "false", "TARGET_POSTGRES_DEFAULT_TARGET_SCHEMA": "raw_records"}
    done = project.run("meltano", "run", "--no-state-update", "--force", *LOAD, env={**sessions, **own})
    assert done.returncode == 0, done.stdout + done.stderr
    for table in ("customers", "orders", "order_items", "products"):
        (there,), (here,) = (
            project.rows(side, f"select count(*), max(updated_at) from {schema}.{table}")
            for side, schema in (("source", "public"), ("warehouse", "raw_records"))
        )
        assert there == here


def test_two_runs_through_a_session_pool_exclude_each_other(project, sessions):
    port = int(sessions["TARGET_POSTGRES_PORT"])
    key = advisory_locks.key("tidemark transform", "marts")
    with pgbouncer.connect(project, port, "tidemark_transformer", "warehouse") as other, advisory.held(other, key):
        done = project.dbt("build", env=sessions)
        assert done.returncode == os.EX_TEMPFAIL
        assert "Another run is building the models" in done.stdout
    # a run that is gone excludes nobody
    project.build("--select", "dim_dates", env=sessions)


@pytest.mark.long
def test_airflows_page_of_streams_is_read_through_a_pool_of_transactions(project, transactions, sessions):
    project.tidemark("run", *LOAD, env=sessions)
    script = """
from tidemark_airflow.streams.run_history import overview
from tidemark_airflow.streams.settings import Monitor, WarehouseSettings
for _ in range(12):
    found = overview(WarehouseSettings(), Monitor())
print(sorted({stream.stream for stream in found.streams}), found.notes)
"""
    login = {"TIDEMARK_MONITOR_PASSWORD": pgbouncer.password(project, "tidemark_watcher")}
    done = subprocess.run(
        [AIRFLOW, "-c", script],
        env={**project.env, **login, **through(transactions, "TARGET")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "['public-customers', 'public-order_items', 'public-orders', 'public-products'] []"
    assert untouched(project, transactions)


@pytest.mark.long
def test_airflows_sessions_of_both_kinds_share_a_pool_of_transactions(project, transactions):
    script = """
import asyncio, os
from pathlib import Path
from tidemark_airflow import environment
os.environ.update(environment.compose(Path.cwd(), os.environ))
from airflow import settings
from sqlalchemy import text

QUERY = text("select current_setting('timezone') where :x = 1")

async def ask():
    zones = set()
    for _ in range(20):
        async with settings.AsyncSession() as session:
            zones.add((await session.execute(QUERY, {"x": 1})).scalar_one())
            await session.commit()
    return zones

async def main():
    zones = set().union(*await asyncio.gather(*(ask() for _ in range(4))))
    await settings.async_engine.dispose()
    return zones

zones = asyncio.run(main())
for _ in range(20):
    with settings.Session() as session:
        zones.add(session.execute(QUERY, {"x": 1}).scalar_one())
        session.commit()
print(zones)
"""
    login = f"tidemark_loader:{pgbouncer.password(project, 'tidemark_loader')}"
    metadata = f"postgresql+psycopg2://{login}@127.0.0.1:{transactions}/untouched"
    done = subprocess.run(
        [AIRFLOW, "-c", script],
        env={
            **project.env,
            "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": metadata,
            "AIRFLOW_HOME": str(project.root / "airflow"),
        },
        cwd=project.root,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "{'UTC'}"
    assert untouched(project, transactions)
