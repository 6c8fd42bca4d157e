"""A warehouse filled by real runs, and a real `airflow api-server` with the page."""

from __future__ import annotations

import atexit
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from running import JWT_SECRET, REPOSITORY, Airflow, Filled

if TYPE_CHECKING:
    from collections.abc import Iterator

OURS = ("TAP_POSTGRES", "TARGET_POSTGRES", "TIDEMARK_", "DBT_", "PG", "AIRFLOW")
AIRFLOW = Path(sys.executable).with_name("airflow")
# importing Airflow creates files; they must not go to the home directory, nor into a running Airflow's
if "airflow" not in sys.modules:
    os.environ["AIRFLOW_HOME"] = tempfile.mkdtemp(prefix="tidemark-airflow-")
    atexit.register(shutil.rmtree, os.environ["AIRFLOW_HOME"], ignore_errors=True)


@pytest.fixture(scope="session")
def filling() -> Iterator[subprocess.Popen[str]]:
    program = subprocess.Popen(
        [REPOSITORY / ".venv" / "bin" / "python", Path(__file__).with_name("filled.py")],
        env={**{k: v for k, v in os.environ.items() if not k.startswith(OURS)}, "PYTHONPATH": str(REPOSITORY)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    yield program
    # not `communicate`: processes that fork programs for all tests may hold its output open
    assert program.stdin
    program.stdin.close()
    program.wait()


@pytest.fixture(scope="session")
def filled(filling: subprocess.Popen[str]) -> Filled:
    assert filling.stdout
    line = filling.stdout.readline()
    assert line, "nothing was filled; its output is above"
    return Filled(**json.loads(line))


@pytest.fixture(scope="session")
def settings(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Return Airflow's environment, with its metadata prepared."""
    home = tmp_path_factory.mktemp("airflow")
    users = {"viewer": "viewer", "admin": "admin"}
    (home / "passwords.json").write_text(json.dumps({name: name for name in users}))
    env = {
        **{name: value for name, value in os.environ.items() if not name.startswith(OURS)},
        "AIRFLOW_HOME": str(home),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_USERS": ",".join(map(":".join, users.items())),
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE": str(home / "passwords.json"),
        "AIRFLOW__API_AUTH__JWT_SECRET": JWT_SECRET,
    }
    subprocess.run([AIRFLOW, "db", "migrate"], env=env, check=True, stdout=subprocess.DEVNULL)
    return env


# in this order, so that the metadata is prepared while the warehouse is filled
@pytest.fixture(scope="session")
def airflow(filling: subprocess.Popen[str], settings: dict[str, str], filled: Filled) -> Iterator[Airflow]:  # noqa: ARG001
    home = Path(settings["AIRFLOW_HOME"])
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with (home / "log").open("w") as log:
        server = subprocess.Popen(
            [AIRFLOW, "api-server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"],
            env={**settings, **filled.variables},
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    running = Airflow(f"http://127.0.0.1:{port}", home)
    try:
        running.wait(server, home / "log")
        yield running
    finally:
        with suppress(ProcessLookupError):
            os.killpg(server.pid, signal.SIGTERM)
        server.wait(timeout=30)
