"""A standby as source: late commits on its primary are not missed, and a lagging standby is refused."""

from __future__ import annotations

import subprocess
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

import psycopg
import pytest

from tests.integration.stages import make_checkout
from tests.ports import free_port
from tests.servers import INSTALLATIONS
from tidemark.local.postgres.account import account_for

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.integration.checkout import Checkout

INCREMENTAL = '{"replication-method": "INCREMENTAL", "replication-key": "updated_at"}'
BIN = INSTALLATIONS.get("system")
pytestmark = pytest.mark.long


@pytest.fixture(scope="module")
def primary() -> Iterator[Checkout]:
    if BIN is None or not (BIN / "pg_basebackup").exists():
        pytest.skip("there is no pg_basebackup to make a standby with")
    for checkout in make_checkout("system", stage="up"):
        checkout.env |= {
            "TAP_POSTGRES__SELECT": '["public-notes.*"]',
            "TAP_POSTGRES__METADATA": f'{{"public-notes": {INCREMENTAL}}}',
            "TAP_POSTGRES_LOOKBACK_SECONDS": "5",
            "TAP_POSTGRES_LONGEST_TRANSACTION_SECONDS": "600",
        }
        with checkout.connect("source") as connection:
            connection.execute("create table notes (id int primary key, updated_at timestamptz default now())")
            connection.execute("insert into notes select generate_series(1, 20000)")
        yield checkout


@pytest.fixture(scope="module")
def standby(primary: Checkout) -> Iterator[dict[str, str]]:
    """Variables that make the standby the source."""
    port = str(free_port())
    data = primary.root / ".tidemark" / "postgres" / "standby"
    account = account_for(data.parent / "source" / "data", primary.root)

    def run(*command: object) -> None:
        subprocess.run([str(part) for part in command], check=True, capture_output=True, cwd="/", **account.popen)

    assert BIN
    data.mkdir(mode=0o700)
    account.own(data)
    log = data / "log"
    run(BIN / "pg_basebackup", "-d", primary.tidemark("dsn", "source").strip(), "-D", data, "-R", "-c", "fast")
    options = f"-c port={port} -c unix_socket_directories="
    run(BIN / "pg_ctl", "start", "-w", "-D", data, "-l", log, "-o", options)
    parts = psycopg.conninfo.conninfo_to_dict(primary.urls["source"])
    try:
        yield {
            "TAP_POSTGRES_HOST": "127.0.0.1",
            "TAP_POSTGRES_PORT": port,
            "TAP_POSTGRES_USER": str(parts["user"]),
            "TAP_POSTGRES_PASSWORD": str(parts["password"]),
            "TAP_POSTGRES_DATABASE": str(parts["dbname"]),
        }
    finally:
        run(BIN / "pg_ctl", "stop", "-m", "immediate", "-D", data)


@pytest.fixture
def caught_up(primary: Checkout, standby: dict[str, str]) -> Callable[[], None]:
    """Waits until the standby has everything that the primary has."""

    def wait() -> None:
        ((position,),) = primary.rows("source", "select pg_current_wal_lsn()::text")
        with on(primary, standby) as connection:
            for _ in range(200):
                row = connection.execute("select pg_last_wal_replay_lsn() >= %s::pg_lsn", [position]).fetchone()
                if row == (True,):
                    return
                time.sleep(0.05)
        pytest.fail("the standby does not catch up")

    return wait


@contextmanager
def on(primary: Checkout, standby: dict[str, str]) -> Iterator[psycopg.Connection]:
    with psycopg.connect(primary.urls["source"], port=standby["TAP_POSTGRES_PORT"], autocommit=True) as connection:
        yield connection


def ids(primary: Checkout) -> set[int]:
    return {row[0] for row in primary.rows("warehouse", "select id from raw.notes where id > 20000")}


def test_what_the_primary_commits_late_is_not_missed(primary, standby, caught_up):
    with primary.connect("source") as late, primary.connect("source") as other:
        late.autocommit = False
        late.execute("insert into notes values (20001)")
        time.sleep(6)
        other.execute("insert into notes values (20002)")
        caught_up()
        done = primary.run("meltano", "run", "tap-postgres", "target-postgres", env=standby)
        assert done.returncode == 0, done.stderr
        assert "Bookmarks stay 10 minutes behind, because a standby does not know" in done.stderr
        assert ids(primary) == {20002}
        late.commit()
    caught_up()
    primary.extract_and_load(standby)
    assert ids(primary) == {20001, 20002}


def test_a_lagging_standby_is_refused_when_rows_seem_deleted(primary, standby, caught_up):
    caught_up()
    with on(primary, standby) as connection:
        connection.execute("select pg_wal_replay_pause()")
        with primary.connect("source") as there:
            there.execute("insert into notes values (20003)")
        primary.extract_and_load()
        assert 20003 in ids(primary)
        refused = primary.run("tidemark", "reconcile", "--repair", env=standby)
        assert refused.returncode == 1
        assert "wait until it has caught up" in refused.stdout
        assert 20003 in ids(primary)
        connection.execute("select pg_wal_replay_resume()")
    caught_up()
    primary.extract_and_load(standby)
    primary.tidemark("reconcile", env=standby)
