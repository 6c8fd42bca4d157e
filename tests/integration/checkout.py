"""A project of a test: runs its programs, reads its databases, starts and kills its servers."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from unittest import mock

import psutil
import psycopg
from dotenv import dotenv_values

from singer_postgres.core import run_events
from tests import programs
from tests.conftest import REPOSITORY
from tidemark.local import databases
from tidemark.project import connections, database_settings
from tidemark.project.directory import Project

if TYPE_CHECKING:
    from concurrent.futures import Future
    from pathlib import Path

_TIMEOUT_S = 120


@dataclass
class Checkout:
    """A copy of the project that a test may run, break and throw away."""

    root: Path
    env: dict[str, str] = field(default_factory=dict)
    urls: dict[str, str] = field(default_factory=dict)

    def command(self, *arguments: str) -> list[str]:
        return [str(self.root / ".venv" / "bin" / arguments[0]), *arguments[1:]]

    def run(self, *arguments: str, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
        """Run a program of the project to its end, forked from a process with its imports if there is one."""
        if (program := REPOSITORY / ".venv" / "bin" / arguments[0]) in programs.NAMES:
            return programs.run([program, *arguments[1:]], cwd=self.root, env={**self.env, **(env or {})})
        return subprocess.run(
            self.command(*arguments),
            cwd=self.root,
            env={**self.env, **(env or {})},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_TIMEOUT_S,
            check=False,
        )

    def meanwhile(self, *arguments: str, env: dict[str, str] | None = None) -> Future[subprocess.CompletedProcess[str]]:
        """Run a program as `run` does, beside what the test does; the result comes at its end."""
        beside = ThreadPoolExecutor(1)
        running = beside.submit(self.run, *arguments, env=env)
        beside.shutdown(wait=False)
        return running

    def tidemark(self, *arguments: str, env: dict[str, str] | None = None) -> str:
        """Run a tidemark command that must succeed; return its output."""
        done = self.run("tidemark", *arguments, env=env)
        assert done.returncode == 0, f"tidemark {' '.join(arguments)}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    def extract_and_load(self, env: dict[str, str] | None = None) -> None:
        """Run only tap and target, for tests that need no models."""
        done = self.run(
            "meltano", "run", "tap-postgres", "target-postgres", env={"MELTANO_RUN_FORCE": "1", **(env or {})}
        )
        assert done.returncode == 0, done.stderr

    def logged_code(self) -> str:
        """Return the code of the last error in the log of all runs."""
        lines = map(json.loads, (self.root / "logs" / "meltano.jsonl").read_text().splitlines())
        return [line["error.code"] for line in lines if "error.code" in line][-1]

    def refusal(self, *arguments: str, env: dict[str, str] | None = None) -> str:
        """Run a tidemark command that must fail; return its error, which must be one line without a traceback."""
        done = self.run("tidemark", *arguments, env=env)
        assert done.returncode not in {0, -signal.SIGKILL}, done.stdout
        (line,) = done.stderr.strip().splitlines()
        assert line.startswith("error: "), done.stderr
        return line

    def dbt_environment(self) -> dict[str, str]:
        """Return the environment in which Meltano would run dbt."""
        settings = dotenv_values(self.root / ".env")
        directories = {
            "DBT_PROJECT_DIR": self.root / "transform",
            "DBT_PROFILES_DIR": self.root / "transform" / "profiles",
            "DBT_TARGET_PATH": self.root / ".meltano" / "dbt" / "target",
            "DBT_GOOD_RUN_PATH": self.root / ".meltano" / "dbt" / "good",
            "DBT_LOG_PATH": self.root / "logs",
        }
        variables = {name: str(path) for name, path in directories.items()} | {"PGTZ": "UTC", "PGDATESTYLE": "ISO"}
        return {**{name: value or "" for name, value in settings.items()}, **self.env, **variables}

    def dbt(self, *arguments: str, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
        """Run dbt to its end as Meltano would, without the second that Meltano takes."""
        full = {**self.dbt_environment(), **(env or {})}
        return programs.run([programs.DBT, *arguments], cwd=self.root, env=full)

    def dbt_failure(self, *arguments: str, env: dict[str, str] | None = None) -> tuple[str, str]:
        """Run a dbt command that must fail; return its output, and the code that it reports to `tidemark run`."""
        events = self.root / "events.jsonl"
        events.write_text("")
        done = self.dbt(*arguments, env={**(env or {}), run_events.VARIABLE: str(events)})
        assert done.returncode
        assert "Traceback" not in done.stdout + done.stderr
        (code,) = [
            line["error"]["code"] for line in map(json.loads, events.read_text().splitlines()) if "error" in line
        ]
        return done.stdout, code

    @property
    def shop(self) -> Path:
        """The dbt package of the demo shop."""
        return self.root / "demo" / "shop"

    def remove_models(self) -> Path:
        """Leave the dbt project without the shop's models; return its empty directory of models."""
        packages = self.root / "transform" / "packages.yml"
        packages.write_text(packages.read_text().replace("  - local: ../demo/shop\n", ""))
        (self.root / "transform" / "dbt_packages" / "shop").unlink(missing_ok=True)
        models = self.root / "transform" / "models"
        shutil.rmtree(models)
        models.mkdir()
        return models

    def build(self, *arguments: str, env: dict[str, str] | None = None) -> str:
        """Build seeds, models and snapshots, which must succeed; return dbt's output."""
        types = ("--resource-type", "seed", "--resource-type", "model", "--resource-type", "snapshot")
        done = self.dbt("build", *types, *arguments, env=env)
        assert done.returncode == 0, done.stdout
        return done.stdout

    def start(
        self, *arguments: str, program: str = "tidemark", env: dict[str, str] | None = None
    ) -> subprocess.Popen[str]:
        """Start a command as the leader of a new process group, as a terminal would."""
        return subprocess.Popen(
            self.command(program, *arguments),
            cwd=self.root,
            env={**self.env, **(env or {})},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def start_servers(self) -> None:
        """Do what `tidemark up` does, without a process for it."""
        with mock.patch.dict(os.environ, self.env, clear=True):
            project = Project(self.root)
            for side in databases.bring_up(project):
                self.urls[side.side] = connections.url(database_settings.admin(project, side))

    def kill_servers(self) -> None:
        """End the servers at once, without a checkpoint: nobody needs the data any more."""
        for pid_file in (self.root / ".tidemark").glob("postgres/*/data/postmaster.pid"):
            if (pid := pid_file.read_text().split()[0]).isdigit() and psutil.pid_exists(int(pid)):
                server = psutil.Process(int(pid))
                if server.name().startswith("postgres"):
                    server.send_signal(signal.SIGQUIT)
                    while server.is_running() and server.status() != psutil.STATUS_ZOMBIE:
                        time.sleep(0.02)

    def connect(self, side: str, database: str | None = None) -> psycopg.Connection[Any]:
        if side not in self.urls:
            self.urls[side] = self.tidemark("dsn", side).strip()
        overrides: dict[str, Any] = {"dbname": database} if database else {}
        return psycopg.connect(
            self.urls[side], autocommit=True, options="-c TimeZone=UTC -c DateStyle=ISO", **overrides
        )

    def rows(self, side: str, query: str) -> list[tuple[Any, ...]]:
        with self.connect(side) as connection:
            return connection.execute(query).fetchall()
