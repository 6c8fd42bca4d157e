"""A real Prometheus with the project's own rules, and the exporters that it scrapes."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
import urllib.parse
import urllib.request
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
import yaml

from tests.conftest import REPOSITORY
from tests.ports import free_port

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from tests.integration.checkout import Checkout

FILES = REPOSITORY / "monitoring" / "prometheus"
NODE_EXPORTER = "prometheus-node-exporter"
SCRAPE_S = 1
# what postgres_exporter 0.17 tells without being asked, and Debian's 0.11 does not: same names, same labels
_NEWER = """
pg_stat_user_tables:
  query: >-
    select current_database() as datname, schemaname, relname, n_live_tup, n_dead_tup from pg_stat_user_tables
  metrics:
    - datname: {usage: LABEL, description: database}
    - schemaname: {usage: LABEL, description: schema}
    - relname: {usage: LABEL, description: table}
    - n_live_tup: {usage: GAUGE, description: live rows}
    - n_dead_tup: {usage: GAUGE, description: dead rows}
pg_wal:
  query: "select coalesce(sum(size), 0) as size_bytes from pg_ls_waldir()"
  metrics:
    - size_bytes: {usage: GAUGE, description: size of WAL}
"""


def program(name: str, package: str) -> str:
    """Return a program's path; skip the test where it is missing."""
    found = shutil.which(name)
    if not found:
        pytest.skip(f"there is no {name}; Debian's package is {package}")
    return found


@dataclass(frozen=True)
class Prometheus:
    """A running Prometheus."""

    url: str

    def get(self, path: str, **parameters: Any) -> Any:
        """Ask its API; fail with its own words."""
        query = urllib.parse.urlencode(parameters, doseq=True)
        try:
            with urllib.request.urlopen(f"{self.url}/api/v1/{path}?{query}", timeout=30) as answer:  # noqa: S310
                return json.load(answer)["data"]
        except urllib.error.HTTPError as error:
            pytest.fail(f"{parameters}: {error.read().decode()}")

    def now(self, expr: str) -> list[dict[str, Any]]:
        """Return the series of an expression, with their latest values."""
        found: list[dict[str, Any]] = self.get("query", query=expr)["result"]
        return found

    def over_time(self, expr: str, seconds: int) -> list[dict[str, Any]]:
        """Return the series of an expression over the last seconds."""
        end = time.time()
        found: list[dict[str, Any]] = self.get("query_range", query=expr, start=end - seconds, end=end, step=SCRAPE_S)[
            "result"
        ]
        return found

    def wait(self, expr: str, timeout_s: float = 60) -> list[dict[str, Any]]:
        """Wait until an expression has a result."""
        deadline = time.monotonic() + timeout_s
        while not (found := self.now(expr)):
            assert time.monotonic() < deadline, f"{expr} has no result"
            time.sleep(0.3)
        return found


@contextmanager
def process(*command: str, ready: str, env: Mapping[str, str] | None = None, log: Path) -> Iterator[None]:
    """Run a program until the block ends. It begins when `ready`, an address, answers."""
    with log.open("w") as output:
        child = subprocess.Popen(command, env={**os.environ, **(env or {})}, stdout=output, stderr=subprocess.STDOUT)
    try:
        deadline = time.monotonic() + 30
        while not _answers(ready):
            assert child.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.1)
        yield
    finally:
        child.terminate()
        child.wait(timeout=30)


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=5):  # noqa: S310
            return True
    except OSError:
        return False


@contextmanager
def tidemark_metrics(project: Checkout, directory: Path, env: Mapping[str, str]) -> Iterator[str]:
    """Run the project's exporter; yield its target."""
    port = free_port()
    command = project.command("tidemark", "metrics", "--port", str(port))
    url = f"http://127.0.0.1:{port}/metrics"
    whole = {**project.env, **env}
    with process("env", "-C", str(project.root), *command, ready=url, env=whole, log=directory / "exporter.log"):
        yield f"127.0.0.1:{port}"


def hash_as_usual(address: str) -> None:
    """Hash a login's password as often as PostgreSQL does: postgres_exporter refuses fewer than 1,000 iterations."""
    with psycopg.connect(address) as connection:
        if connection.info.server_version >= 160000:
            connection.execute("set scram_iterations = 4096")
            connection.execute(f"alter role current_user password '{connection.info.password}'")


@contextmanager
def postgres_exporter(address: str, directory: Path) -> Iterator[str]:
    """Run Debian's postgres_exporter on a database; yield its target."""
    hash_as_usual(address)
    port = free_port()
    queries = directory / "queries.yml"
    queries.write_text(_NEWER)
    command = [
        program("prometheus-postgres-exporter", "prometheus-postgres-exporter"),
        f"--web.listen-address=127.0.0.1:{port}",
        f"--extend.query-path={queries}",
    ]
    env = {"DATA_SOURCE_NAME": f"{address}?sslmode=disable"}
    log = directory / f"postgres-exporter-{port}.log"
    with process(*command, ready=f"http://127.0.0.1:{port}/metrics", env=env, log=log):
        yield f"127.0.0.1:{port}"


@contextmanager
def node_exporter(directory: Path) -> Iterator[str]:
    """Run node_exporter; yield its target."""
    port = free_port()
    command = [program(NODE_EXPORTER, NODE_EXPORTER), f"--web.listen-address=127.0.0.1:{port}"]
    with process(*command, ready=f"http://127.0.0.1:{port}/metrics", log=directory / "node-exporter.log"):
        yield f"127.0.0.1:{port}"


@contextmanager
def pgbouncer_exporter(address: str, directory: Path) -> Iterator[str]:
    """Run a stand-in for pgbouncer_exporter, as Debian's fails on Debian's PgBouncer; yield its target."""
    port = free_port()
    script = str(Path(__file__).with_name("pgbouncer_exporter.py"))
    log = directory / "pgbouncer-exporter.log"
    with process(sys.executable, script, address, str(port), ready=f"http://127.0.0.1:{port}/metrics", log=log):
        yield f"127.0.0.1:{port}"


@contextmanager
def prometheus(targets: Mapping[str, list[dict[str, Any]]], directory: Path) -> Iterator[Prometheus]:
    """Run Prometheus with the project's configuration and rules, other targets and shorter intervals."""
    port = free_port()
    shutil.copytree(FILES, directory / "prometheus")
    configuration = directory / "prometheus" / "prometheus.yml"
    known = yaml.safe_load(configuration.read_text())
    known["global"] = {"scrape_interval": f"{SCRAPE_S}s", "evaluation_interval": f"{SCRAPE_S}s"}
    for job in known["scrape_configs"]:
        job["scrape_timeout"] = "1s"
    configuration.write_text(yaml.safe_dump(known))
    own = {"prometheus": [{"targets": [f"127.0.0.1:{port}"]}], "alertmanager": []}
    for file in (directory / "prometheus" / "targets").glob("*.yml"):
        file.write_text(yaml.safe_dump({**own, **targets}.get(file.stem, [])))
    url = f"http://127.0.0.1:{port}"
    command = [
        program("prometheus", "prometheus"),
        f"--config.file={configuration}",
        f"--storage.tsdb.path={directory / 'data'}",
        f"--web.listen-address=127.0.0.1:{port}",
    ]
    with process(*command, ready=f"{url}/-/ready", log=directory / "prometheus.log"):
        yield Prometheus(url)
