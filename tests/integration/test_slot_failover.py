"""LOG_BASED streams after the promotion of a standby: they go on, or are repaired."""

from __future__ import annotations

import subprocess
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from tests.integration.stages import make_checkout
from tests.ports import free_port
from tests.servers import INSTALLATIONS
from tidemark.local.postgres.account import account_for

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.integration.checkout import Checkout

BIN = INSTALLATIONS["embedded"]
SLOT = "tidemark_tap_postgres"
RUN = ("run", "tap-postgres", "target-postgres")
pytestmark = pytest.mark.long


@pytest.fixture
def project() -> Iterator[Checkout]:
    for checkout in make_checkout("embedded", stage="up"):
        checkout.env |= {
            "TAP_POSTGRES__SELECT": '["public-notes.*"]',
            "TAP_POSTGRES__METADATA": '{"public-notes": {"replication-method": "LOG_BASED"}}',
            "MELTANO_RUN_FORCE": "1",
        }
        with checkout.connect("source") as connection:
            connection.execute("alter system set wal_level = logical")
            connection.execute("create table notes (id int primary key, name text)")
            connection.execute("insert into notes values (1, 'before')")
        checkout.tidemark("down")
        checkout.tidemark("up")
        checkout.tidemark("slots", "create")
        yield checkout


@contextmanager
def standby(project: Checkout, name: str) -> Iterator[Server]:
    """Start a standby of the source that synchronizes its slots."""
    data = project.root / ".tidemark" / "postgres" / name
    server = Server(project, data, free_port())
    with project.connect("source") as connection:
        connection.execute("select pg_create_physical_replication_slot(%s)", [name])
    data.mkdir(mode=0o700)
    server.account.own(data)
    server.run("pg_basebackup", "-d", project.tidemark("dsn", "source").strip(), "-D", data, "-R", "-c", "fast")
    with (data / "postgresql.auto.conf").open("a") as settings:
        settings.write(f"primary_slot_name = '{name}'\nsync_replication_slots = on\nhot_standby_feedback = on\n")
    server.start()
    try:
        yield server
    finally:
        server.stop()


class Server:
    """A standby, and the variables that make it the source."""

    def __init__(self, project: Checkout, data: Any, port: int) -> None:
        self.project, self.data, self.port = project, data, port
        self.account = account_for(data.parent / "source" / "data", project.root)
        parts = psycopg.conninfo.conninfo_to_dict(project.urls["source"])
        self.env = {
            "TAP_POSTGRES_HOST": "127.0.0.1",
            "TAP_POSTGRES_PORT": str(port),
            "TAP_POSTGRES_USER": str(parts["user"]),
            "TAP_POSTGRES_PASSWORD": str(parts["password"]),
            "TAP_POSTGRES_DATABASE": str(parts["dbname"]),
        }

    def run(self, program: str, *arguments: object) -> None:
        command = [str(BIN / program), *map(str, arguments)]
        subprocess.run(command, check=True, capture_output=True, cwd="/", **self.account.popen)

    def start(self) -> None:
        options = f"-c port={self.port} -c unix_socket_directories="
        self.run("pg_ctl", "start", "-w", "-D", self.data, "-l", self.data / "log", "-o", options)

    def stop(self) -> None:
        subprocess.run(
            [str(BIN / "pg_ctl"), "stop", "-m", "immediate", "-D", str(self.data)],
            check=False,
            capture_output=True,
            cwd="/",
            **self.account.popen,
        )

    def promote(self) -> None:
        self.run("pg_ctl", "promote", "-w", "-D", self.data)

    def connect(self) -> psycopg.Connection[Any]:
        return psycopg.connect(self.project.urls["source"], port=self.port, autocommit=True)

    def wait_for_slot(self) -> None:
        """Wait until the standby has the slot, and everything that the primary has."""
        for _ in range(20):
            # a standby keeps a slot only from a position on that the primary has passed
            self.project.rows("source", "select pg_log_standby_snapshot()")
            self.project.extract_and_load()
            ((end,),) = self.project.rows("source", "select pg_current_wal_lsn()::text")
            with self.connect() as connection:
                for _ in range(20):
                    row = connection.execute(
                        "select exists (select from pg_replication_slots where slot_name = %s and not temporary), "
                        "pg_last_wal_replay_lsn() >= %s::pg_lsn",
                        [SLOT, end],
                    ).fetchone()
                    if row == (True, True):
                        return
                    time.sleep(0.1)
        pytest.fail(f"the standby does not synchronize the slot: {(self.data / 'log').read_text()[-1000:]}")


def names(project: Checkout) -> list[str]:
    rows = project.rows("warehouse", "select name from raw.notes where _sdc_deleted_at is null order by id")
    return [name for (name,) in rows]


def test_after_a_promotion_streams_go_on_or_are_repaired(project):
    project.extract_and_load()
    with standby(project, "near") as near, standby(project, "far") as far:
        near.wait_for_slot()
        far.wait_for_slot()
        far.stop()
        with project.connect("source") as connection:
            connection.execute("insert into notes values (2, 'loaded, and on one standby only')")
        project.extract_and_load()
        near.wait_for_slot()

        near.promote()
        with near.connect() as connection:
            connection.execute("insert into notes values (3, 'on the promoted standby')")
        project.extract_and_load(near.env)
        assert names(project) == ["before", "loaded, and on one standby only", "on the promoted standby"]
        near.stop()

        with (far.data / "postgresql.auto.conf").open("a") as settings:
            settings.write("primary_conninfo = ''\nsync_replication_slots = off\n")
        far.start()
        far.promote()
        with far.connect() as connection:
            connection.execute("insert into notes values (4, 'on the other one')")
        done = project.run("meltano", *RUN, env=far.env)
        assert done.returncode
        assert "tidemark slots repair" in done.stderr
        assert names(project) == ["before", "loaded, and on one standby only", "on the promoted standby"]
        project.tidemark("slots", "repair", "--allow-deletes", "100%", env=far.env)
        project.extract_and_load(far.env)
        assert names(project) == ["before", "on the other one"]
