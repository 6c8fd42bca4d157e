"""A warehouse that real runs filled, and a real `airflow api-server` that has the page in it."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import psycopg
import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

REPOSITORY = Path(__file__).resolve().parents[4]
PLUGIN = REPOSITORY / "plugins" / "tidemark-airflow" / "src"
OURS = ("TAP_POSTGRES", "TARGET_POSTGRES", "TIDEMARK_", "DBT_", "PG", "AIRFLOW")
JWT_SECRET = "a secret of this test alone, as long as the signature wants one to be: 64 bytes"
# the first words of whatever imports Airflow make a file tree here, and not in the home directory
os.environ.setdefault("AIRFLOW_HOME", tempfile.mkdtemp(prefix="tidemark-airflow-"))


@dataclass(frozen=True)
class Filled:
    """A warehouse, by the variables that the page knows it by, and as its owner connects to it."""

    variables: dict[str, str]
    owner: str

    def do(self, *statements: str) -> None:
        with psycopg.connect(self.owner, autocommit=True) as connection:
            for statement in statements:
                connection.execute(statement)


@pytest.fixture(scope="session")
def filled() -> Iterator[Filled]:
    program = subprocess.Popen(
        [REPOSITORY / ".venv" / "bin" / "python", Path(__file__).with_name("filled.py")],
        env={**{k: v for k, v in os.environ.items() if not k.startswith(OURS)}, "PYTHONPATH": str(REPOSITORY)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert program.stdout
    try:
        line = program.stdout.readline()
        assert line, "nothing was filled; what it said is above"
        yield Filled(**json.loads(line))
    finally:
        program.communicate()


@dataclass
class Airflow:
    """A running api-server with one user of each kind that matters; each user's password is their name."""

    url: str

    def token(self, user: str = "viewer") -> str:
        answer = httpx.post(f"{self.url}/auth/token", json={"username": user, "password": user})
        return answer.raise_for_status().json()["access_token"]

    def ask(self, path: str, method: str = "GET", **options: Any) -> httpx.Response:
        return httpx.request(method, f"{self.url}{path}", timeout=30, **options)


@pytest.fixture(scope="session")
def airflow(filled: Filled, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Airflow]:
    home = tmp_path_factory.mktemp("airflow")
    (home / "plugins").mkdir()
    (home / "plugins" / "streams.py").write_text("from tidemark_airflow.plugin import TidemarkPlugin\n")
    users = {"viewer": "viewer", "admin": "admin"}
    (home / "passwords.json").write_text(json.dumps({name: name for name in users}))
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    env = {
        **{name: value for name, value in os.environ.items() if not name.startswith(OURS)},
        **filled.variables,
        "PYTHONPATH": str(PLUGIN),
        "AIRFLOW_HOME": str(home),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_USERS": ",".join(map(":".join, users.items())),
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE": str(home / "passwords.json"),
        "AIRFLOW__API_AUTH__JWT_SECRET": JWT_SECRET,
    }
    command = [Path(sys.executable).with_name("airflow")]
    subprocess.run([*command, "db", "migrate"], env=env, check=True, stdout=subprocess.DEVNULL)
    with (home / "log").open("w") as log:
        server = subprocess.Popen(
            [*command, "api-server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"],
            env=env,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    running = Airflow(f"http://127.0.0.1:{port}")
    try:
        _wait(server, running, home / "log")
        yield running
    finally:
        os.killpg(server.pid, signal.SIGTERM)
        server.wait(timeout=30)


def _wait(server: subprocess.Popen[bytes], running: Airflow, log: Path) -> None:
    deadline = time.monotonic() + 90
    while True:
        try:
            running.ask("/api/v2/version").raise_for_status()
        except httpx.HTTPError:
            assert server.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.2)
        else:
            return
