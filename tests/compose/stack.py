"""The services of docker-compose.yml, started with `make compose-up` from a copy of the project."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import uuid
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from dotenv import dotenv_values

from tests.airflow.server import Airflow
from tests.conftest import AS_CLONED, REPOSITORY
from tests.ports import free_port
from tidemark.project.user_files import is_users

if TYPE_CHECKING:
    from pathlib import Path

_PORTS = (
    "SOURCE_DB_PORT",
    "TARGET_DB_PORT",
    "AIRFLOW_PORT",
    "DBT_DOCS_PORT",
    "PROMETHEUS_PORT",
    "ALERTMANAGER_PORT",
    "GRAFANA_PORT",
    "ELASTICSEARCH_PORT",
    "KIBANA_PORT",
)
# a Docker without a bridge network, as in a lab, builds in the host's network
_HOST_NETWORK = """
services:
""" + "".join(
    f"  {name}: {{build: {{network: host}}}}\n"
    for name in (
        "etl", "dbt", "pgbouncer", "airflow-init", "airflow-api-server", "airflow-scheduler", "airflow-dag-processor",
        "airflow-triggerer", "airflow-worker", "follow", "tidemark-metrics", "log-shipper",
    )
)  # fmt: skip


class FailedError(AssertionError):
    """A command failed that had to succeed."""


@dataclass
class Stack:
    """One project of docker compose."""

    root: Path
    engine: dict[str, str]
    environment: dict[str, str] = field(default_factory=dict)
    airflow: StackAirflow = field(init=False)

    def __post_init__(self) -> None:
        self.name = f"tidemark-test-{uuid.uuid4().hex[:8]}"
        self.ports = {name: free_port() for name in _PORTS}
        clean = {k: v for k, v in os.environ.items() if not k.startswith(("PG", "TAP_", "TARGET_", "TIDEMARK_"))}
        self.environment = {
            **clean,
            **self.engine,
            "COMPOSE_PROJECT_NAME": self.name,
            **{name: str(port) for name, port in self.ports.items()},
        }
        files = subprocess.run(
            ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
            cwd=REPOSITORY,
            capture_output=True,
            text=True,
            check=True,
        ).stdout.split("\0")
        for each in filter(None, files):
            if (REPOSITORY / each).is_file() and not is_users(each):
                (self.root / each).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(REPOSITORY / each, self.root / each, follow_symlinks=False)
        shutil.copytree(AS_CLONED, self.root, dirs_exist_ok=True)
        if "DOCKER_BUILDKIT" in self.engine:
            (self.root / "docker-compose.override.yml").write_text(_HOST_NETWORK)
        self.airflow = StackAirflow(self)

    # --- commands -----------------------------------------------------------------------------------------------------

    def command(self, *words: str, **more: Any) -> subprocess.CompletedProcess[str]:
        """Run a command in the project, whatever its status."""
        return subprocess.run(
            words,
            cwd=self.root,
            env=self.environment,
            stdin=more.pop("stdin", subprocess.DEVNULL),
            capture_output=True,
            text=True,
            check=False,
            **more,
        )

    def ok(self, *words: str) -> str:
        """Run a command that must succeed; return its output."""
        done = self.command(*words)
        if done.returncode:
            raise FailedError(
                f"{' '.join(words)}: status {done.returncode}\n{done.stdout[-8000:]}\n{done.stderr[-8000:]}"
            )
        return done.stdout

    def make(self, target: str, **variables: Any) -> str:
        return self.ok("make", "--no-print-directory", target, *(f"{k}={v}" for k, v in variables.items()))

    @property
    def compose_command(self) -> list[str]:
        plugin = shutil.which("docker-compose", path=self.environment["PATH"]) is None
        return ["docker", "compose"] if plugin else ["docker-compose"]

    def compose(self, *words: str) -> str:
        return self.ok(*self.compose_command, "--profile", "*", *words)

    def run(self, service: str, *words: str, **variables: str) -> subprocess.CompletedProcess[str]:
        """Run a job in a new container, whatever its status."""
        given = [word for name, value in variables.items() for word in ("--env", f"{name}={value}")]
        return self.command(*self.compose_command, "run", "--rm", "--no-TTY", *given, service, *words)

    def start_job(self, service: str, *words: str) -> subprocess.Popen[str]:
        """Start a job in a new container."""
        command = [*self.compose_command, "run", "--rm", "--no-TTY", service, *words]
        return subprocess.Popen(
            command,
            cwd=self.root,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    # --- what is there ------------------------------------------------------------------------------------------------

    def services(self) -> dict[str, list[dict[str, Any]]]:
        """Return the output of `docker inspect` for each container, by service."""
        names = self.compose("ps", "--all", "--quiet").split()
        found: dict[str, list[dict[str, Any]]] = {}
        for each in json.loads(self.ok("docker", "inspect", *names)):
            found.setdefault(each["Config"]["Labels"]["com.docker.compose.service"], []).append(each)
        return found

    def exec(self, service: str, *words: str) -> subprocess.CompletedProcess[str]:
        return self.command(*self.compose_command, "exec", "--no-TTY", service, *words)

    def sql(self, service: str, database: str, statement: str) -> str:
        """Query a server from within its container, as its owner; return the rows as text."""
        psql = ["psql", "--no-psqlrc", "--tuples-only", "--no-align"]
        done = self.exec(service, *psql, "--dbname", database, "--command", statement)
        if done.returncode:
            raise FailedError(done.stderr)
        return done.stdout.strip()

    def source(self, statement: str) -> str:
        return self.sql("source_db", "shop", statement)

    def warehouse(self, statement: str) -> str:
        return self.sql("target_db", "warehouse", statement)

    def secret(self, name: str) -> str:
        return (self.root / ".secrets" / name).read_text().strip()

    def secrets(self) -> dict[str, str]:
        """Return the secret texts: files except certificates, a key's second line, and further sources' passwords."""
        found: dict[str, str] = {}
        for file in (self.root / ".secrets").iterdir():
            text = file.read_text().strip()
            if file.suffix == ".env":
                variables = dotenv_values(file).items()
                found |= {name: value for name, value in variables if value and name.endswith("_PASSWORD")}
            elif text and file.suffix not in {".crt", ".srl"}:
                found[file.name] = text.splitlines()[1] if file.suffix == ".key" else text
        return found


class StackAirflow(Airflow):
    """The stack's Airflow, reached from this machine."""

    def __init__(self, stack: Stack) -> None:
        super().__init__(checkout=None, url=f"http://127.0.0.1:{stack.ports['AIRFLOW_PORT']}")  # type: ignore[arg-type]
        self.stack = stack

    @property
    def password(self) -> str:
        return self.stack.secret("AIRFLOW_ADMIN_PASSWORD")
