"""Airflow on several machines: workers with separate directories, the same databases, a read-only project.

Airflow's own metadata is behind a pool of transactions, if this machine has PgBouncer, with logins for several people.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
import time
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
import pytest
import requests
from dotenv import dotenv_values

from tests.airflow.conftest import project
from tests.airflow.server import until
from tests.airflow.test_airflow import locked
from tests.integration import pgbouncer
from tests.ports import free_port

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.airflow.alerts import Receiver
    from tests.airflow.server import Airflow
    from tests.integration.checkout import Checkout

REDIS = shutil.which("redis-server")
POOLER = shutil.which("pgbouncer")
_POOLED = "select count(*) <= 5 from pg_stat_activity where datname = 'airflow'"
pytestmark = [
    pytest.mark.airflow,
    pytest.mark.timeout(600),
    pytest.mark.skipif(REDIS is None, reason="needs redis-server (Debian: redis-server)"),
]


@contextmanager
def redis() -> Iterator[int]:
    """Run a Redis that keeps nothing."""
    port = free_port()
    with tempfile.TemporaryDirectory() as directory:
        server = subprocess.Popen(
            [REDIS or "", "--bind", "127.0.0.1", "--port", str(port), "--save", "", "--dir", directory],
            stdout=subprocess.DEVNULL,
        )
        try:
            yield port
        finally:
            server.terminate()
            server.wait()


class Worker:
    """A machine that runs tasks: its own directory, and a read-only project."""

    def __init__(self, airflow: Airflow, name: str) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix=f"tidemark-{name}-"))
        root = airflow.checkout.root
        program = root / ".meltano" / "utilities" / "airflow" / "venv" / "bin" / "tidemark-airflow"
        command = [str(program), "celery", "worker", "--concurrency=1", f"--celery-hostname={name}@here"]
        self.log = self.directory / "worker.log"
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [*_read_only(root), *command, "--skip-serve-logs"],
                cwd=self.directory,
                env={
                    **airflow.checkout.env,
                    "MELTANO_PROJECT_ROOT": str(root),
                    "TIDEMARK_WORK_DIR": str(self.directory),
                    # lets root run it
                    "C_FORCE_ROOT": "1",
                },
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def wait(self) -> None:
        """Wait until it is ready."""
        until(lambda: " ready." in self.log.read_text(), f"{self.directory} is ready", seconds=90)

    @property
    def busy(self) -> bool:
        """Whether it is loading."""
        for each in self._all():
            with suppress(psutil.Error):
                if "target-postgres" in " ".join(each.cmdline()):
                    return True
        return False

    @property
    def has_worked(self) -> bool:
        return (self.directory / "logs" / "meltano.jsonl").exists()

    def _all(self) -> list[psutil.Process]:
        with suppress(psutil.NoSuchProcess):
            return [psutil.Process(self.process.pid), *psutil.Process(self.process.pid).children(recursive=True)]
        return []

    def die(self) -> None:
        """Kill everything at once, as when a machine loses its power."""
        for each in self._all():
            with suppress(psutil.NoSuchProcess):
                each.send_signal(signal.SIGKILL)
        self.process.wait()

    def end(self) -> None:
        if self.process.poll() is None:
            self.process.terminate()
            with suppress(subprocess.TimeoutExpired):
                self.process.wait(timeout=30)
        self.die()
        shutil.rmtree(self.directory, ignore_errors=True)


def _read_only(root: Path) -> list[str]:
    """Return a command that makes `root` read-only: root can write everywhere except to a read-only mount."""
    if os.geteuid():
        return ["env"]
    mount = f'mount --bind {root} {root} && mount -o remount,ro,bind {root} && exec "$@"'
    return ["unshare", "--mount", "sh", "-c", mount, "sh"]


@pytest.fixture(scope="module")
def machines(receiver: Receiver) -> Iterator[Airflow]:
    with ExitStack() as stack:
        airflow = stack.enter_context(project(receiver))
        checkout = airflow.checkout
        _with_large_table(checkout)
        broker = stack.enter_context(redis())
        logs = stack.enter_context(tempfile.TemporaryDirectory())
        # another machine can't start a server here, so for it both are the user's own
        passwords = {name: value or "" for name, value in dotenv_values(checkout.root / ".env").items()}
        sides = {f"{side}_POSTGRES_HOST": "127.0.0.1" for side in ("TAP", "TARGET")}
        checkout.connect("source").close()
        checkout.connect("warehouse").close()
        with checkout.connect("warehouse", "postgres") as connection:
            connection.execute(f"create role meltano login password '{passwords['TARGET_POSTGRES_PASSWORD']}'")
            connection.execute("create database meltano owner meltano")
        login = f"meltano:{passwords['TARGET_POSTGRES_PASSWORD']}"
        port = checkout.env["TARGET_POSTGRES_PORT"]
        checkout.env |= sides | {
            "DBT_POSTGRES_USER": "tidemark_transformer",
            "MELTANO_DATABASE_URI": f"postgresql+psycopg://{login}@127.0.0.1:{port}/meltano",
            # longer than the test locks a table
            "TARGET_POSTGRES_LOCK_TIMEOUT": "600",
            "AIRFLOW__CORE__EXECUTOR": "CeleryExecutor",
            "AIRFLOW__CELERY__BROKER_URL": f"redis://127.0.0.1:{broker}/0",
            # a disk that all share, so that the API server can show the workers' logs
            "AIRFLOW__LOGGING__BASE_LOG_FOLDER": logs,
            "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT": "20",
            "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT_DETECTION_INTERVAL": "3",
        }
        if POOLER:
            with checkout.connect("warehouse", "postgres") as connection:
                connection.execute("create database airflow owner tidemark_loader")
            pool = stack.enter_context(pgbouncer.pooling(checkout, "transaction", size=5))
            login = f"tidemark_loader:{passwords['TARGET_POSTGRES_PASSWORD']}"
            checkout.env |= {
                "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"postgresql+psycopg2://{login}@127.0.0.1:{pool}/airflow",
                "AIRFLOW__CORE__AUTH_MANAGER": "airflow.providers.fab.auth_manager.fab_auth_manager.FabAuthManager",
            }
        airflow.start()
        stack.callback(airflow.stop)
        yield airflow


@contextmanager
def working(airflow: Airflow, count: int) -> Iterator[list[Worker]]:
    """Run workers, which are all ready."""
    with ExitStack() as stack:
        found = []
        for number in range(count):
            found.append(Worker(airflow, f"worker{number}"))
            stack.callback(found[-1].end)
        for worker in found:
            worker.wait()
        yield found


def _with_large_table(checkout: Checkout) -> None:
    """Give the source a table whose first load has parts, and the project loads that two and four runs share."""
    with checkout.connect("source") as connection:
        connection.execute(
            "create table big (id bigint primary key, note text, updated_at timestamptz not null default now());"
            "insert into big select n, repeat('x', 300), now() - interval '1 day' from generate_series(1, 15000) n"
        )
    streams = checkout.root / "extract" / "extractors.meltano.yml"
    text = streams.read_text().replace("- public-orders.*", "- public-orders.*\n        - public-big.*")
    last = "public-order_items: *incremental"
    streams.write_text(text.replace(last, f"{last}\n        public-big: *incremental"))
    jobs = checkout.root / "orchestrate" / "jobs.meltano.yml"
    # with more parts than runs
    schedule = """
  - name: load-of-{0}
    job: sync
    interval: "@manual"
    shards: {0}
    env: {{TIDEMARK_SHARD_PART_MB: "{1}"}}
"""
    jobs.write_text(jobs.read_text() + schedule.format(2, 2) + schedule.format(4, 1))


def _forget_loads(checkout: Checkout) -> None:
    """Let the next load be a first one."""
    if checkout.rows("warehouse", "select to_regclass('raw.big') is not null") == [(True,)]:
        with checkout.connect("warehouse") as connection:
            connection.execute("drop table raw.big, raw._tidemark_load_parts; delete from raw._tidemark_state")
        done = checkout.run("meltano", "state", "clear", "--force", "dev:tap-postgres-to-target-postgres")
        assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("count", [2, pytest.param(4, marks=pytest.mark.long)])
def test_workers_share_a_load_and_the_parts_of_a_killed_one_are_taken_over(machines, receiver, count):
    airflow, checkout, dag = machines, machines.checkout, f"load-of-{count}"
    _forget_loads(checkout)
    with working(airflow, count) as workers:
        # the pool has a slot for each of the runs of the largest load
        assert airflow.get("/pools/tidemark_source")["slots"] == 4
        airflow.unpause(dag)
        with airflow.tasks_as_installed():
            load = airflow.trigger(dag)
            finished = "select count(*) from raw._tidemark_load_parts where finished_at is not null having count(*) > 0"
            exists = "select to_regclass('raw._tidemark_load_parts') is not null"
            until(lambda: checkout.rows("warehouse", exists) == [(True,)], "the table is divided")
            until(lambda: checkout.rows("warehouse", finished), "a part is loaded")
            waiting = (
                "select count(*) from pg_locks where not granted and relation = 'raw.big'::regclass having count(*) > 1"
            )
            with locked(airflow, "raw.big"):
                until(lambda: checkout.rows("warehouse", waiting), "parts are loaded")
                busy = until(lambda: [worker for worker in workers if worker.busy], "one of these loads a part")
                busy[-1].die()
        assert airflow.wait(dag, load) == "success", airflow.logs(dag, load)
        parts = airflow.get(f"/dags/{dag}/dagRuns/{load}/taskInstances")["task_instances"]
        loads = [task for task in parts if task["task_id"] == "extract_load"]
        assert len(loads) == count
        # the killed one's own run ended, too
        assert sorted(task["try_number"] for task in loads) == [*[1] * (count - 1), 2]
        assert all(worker.has_worked for worker in workers)
        airflow.unpause("models")
        airflow.run("models")
    same = "select count(*), count(distinct id), md5(string_agg((id, note, updated_at)::text, ';' order by id)) from "
    assert checkout.rows("warehouse", f"{same} raw.big") == checkout.rows("source", f"{same} big")
    for table, key in (("orders", "order_id"), ("customers", "customer_id"), ("products", "product_id")):
        counted = f"select count(*), count(distinct {key}) from "
        assert checkout.rows("warehouse", f"{counted} raw.{table}") == checkout.rows("source", f"{counted} {table}")
    event = [each for each in airflow.events("raw") if each["extra"]["rows"] >= 15000][-1]
    assert (event["source_dag_id"], event["source_task_id"]) == (dag, "extract_load_done")
    # all find the state in the same place
    state = checkout.run("meltano", "state", "list").stdout
    assert "dev:tap-postgres-to-target-postgres" in state
    assert not (checkout.root / ".meltano" / "meltano.db").exists()
    assert receiver.take() == []


@pytest.mark.skipif(not POOLER, reason="needs PgBouncer (Debian: pgbouncer)")
def test_airflow_runs_on_metadata_behind_a_pool_of_transactions_and_the_administrator_logs_in(machines):
    assert f"user admin, password {machines.password}" in machines.said
    # all of Airflow's connections share the pool's sessions
    assert machines.checkout.rows("warehouse", _POOLED) == [(True,)]
    # nothing of Airflow's outlives its transaction
    assert machines.checkout.rows("warehouse", "select * from pg_locks where locktype = 'advisory'") == []
    machines.log_in()
    wrong = {"username": "admin", "password": "guess"}
    assert requests.post(f"{machines.url}/auth/token", json=wrong, timeout=30).status_code == 401


@pytest.mark.long
def test_workers_that_share_only_the_databases_share_the_work_and_take_over_from_a_dead_one(machines, receiver):
    airflow = machines
    for dag in ("load", "models"):
        airflow.unpause(dag)
    with working(airflow, 2) as workers, airflow.tasks_as_installed():
        airflow.run("load")
        airflow.run("models")
        # one worker is busy, so the other must take the next task
        # as the owner of the embedded server, which requires that no host is named
        owner = {"TAP_POSTGRES_HOST": "", "TARGET_POSTGRES_HOST": ""}
        airflow.checkout.tidemark("demo", "change", "--rows", "100", "--seed", "1", env=owner)
        with locked(airflow, "raw.orders"):
            load = airflow.trigger("load")
            (busy,) = until(lambda: [worker for worker in workers if worker.busy], "a worker loads")
            airflow.run("models")
            assert all(worker.has_worked for worker in workers)
            busy.die()
            # its sessions and their locks end with it
            time.sleep(2)
        assert airflow.wait("load", load) == "success", airflow.logs("load", load)
        assert airflow.tasks("load", load) == {"extract_load": ("success", 2)}
    done = airflow.checkout.run("tidemark", "reconcile", "--repair", "--allow-deletes", "20%")
    assert done.returncode == 0, done.stderr
    twice = "select order_id from raw.orders group by 1 having count(*) > 1"
    assert airflow.checkout.rows("warehouse", twice) == []
    assert receiver.take() == []
