"""A separate project for each test that asks: the repository's files, the installed environments, other ports,
other data. The tests neither read nor change the user's project."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal
from unittest import mock

import psutil
import psycopg
import pytest
from dotenv import dotenv_values

from singer_postgres.core import run_events
from tests import programs
from tests.conftest import AS_CLONED, REPOSITORY, memory, shared
from tests.forks import PACKAGES, look_up_once, parse_yaml_in_c
from tests.servers import INSTALLATIONS, variable
from tidemark.local import databases
from tidemark.local.postgres import binaries
from tidemark.project import connections, database_settings, demo_files, new_project
from tidemark.project.directory import Project
from tidemark.project.user_files import is_users
from tidemark.release import contents, definitions

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from concurrent.futures import Future

OURS = ("TAP_POSTGRES", "TARGET_POSTGRES", "TIDEMARK_", "MELTANO_", "DBT_", "PG")
_TIMEOUT_S = 120
SCALE = "0.002"
# one is enough for `make test`, as CI runs it on each version
EACH_POSTGRES = [
    pytest.param(name, marks=[] if name == "embedded" else [pytest.mark.long]) for name in sorted(INSTALLATIONS)
]
# tests that call functions of tidemark let Meltano look up thousands of settings too
look_up_once()
parse_yaml_in_c()
# how projects begin: as a clone, or by `tidemark init`
WAY = os.environ.get("TESTED_WAY", "clone")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def free_ports(count: int) -> list[str]:
    # hold both sockets at once, or the second port could equal the first
    with ExitStack() as stack:
        probes = [stack.enter_context(socket.socket()) for _ in range(count)]
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [str(probe.getsockname()[1]) for probe in probes]


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


Stage = Literal["up", "loaded", "built"]


def _bring_up(checkout: Checkout) -> None:
    checkout.tidemark("up")
    for side in ("source", "warehouse"):
        with checkout.connect(side) as connection:
            if connection.info.server_version >= 160000:
                # the thousands of connections of the tests would spend 3 ms each on hashes of their passwords
                connection.execute("alter system set scram_iterations = 1")
                connection.execute("select pg_reload_conf()")
                connection.execute("set scram_iterations = 1")
                connection.execute(f"alter role current_user password '{connection.info.password}'")
    # which sets the passwords of the other roles
    checkout.tidemark("up")


def _load_shop(checkout: Checkout) -> None:
    checkout.tidemark("demo", "load", "--scale", SCALE)
    checkout.extract_and_load()


# the stages of a project, each after the one before
STAGES: dict[Stage, Callable[[Checkout], object]] = {
    "up": _bring_up,
    "loaded": _load_shop,
    "built": lambda checkout: checkout.build(),
}


def make_checkout(
    installation: str = "embedded", stage: Stage | None = None, *, parent: Path | None = None
) -> Iterator[Checkout]:
    """Make a project, in memory if there is room.

    Args:
        installation: the PostgreSQL installation of its servers.
        stage: the project is at this stage and its servers run; none for a fresh clone.
        parent: make it in this directory, for instance on a disk to measure the disk's cost.
    """
    # not pytest's tmp_path: when root runs the tests, the servers' user could not read it
    root = Path(tempfile.mkdtemp(prefix="tidemark-test-", dir=parent or memory()))
    root.chmod(0o755)
    if stage is None:
        _clone(root)
    else:
        _copy(_project_at(stage, installation), root)
        _link_programs(_project_at(stage, installation), root)
    env = {name: value for name, value in os.environ.items() if not name.startswith(OURS)}
    source_port, warehouse_port = free_ports(2)
    env |= {
        "TAP_POSTGRES_PORT": source_port,
        "TARGET_POSTGRES_PORT": warehouse_port,
        "TIDEMARK_POSTGRES_BIN": variable(installation),
        "COLUMNS": programs.WIDTH,
    }
    checkout = Checkout(root, env)
    try:
        if stage is not None:
            checkout.start_servers()
        yield checkout
    finally:
        checkout.kill_servers()
        # a test may have moved the project
        shutil.rmtree(os.path.realpath(checkout.root / ".tidemark" / "postgres"), ignore_errors=True)
        shutil.rmtree(checkout.root)


def copy_files(root: Path) -> None:
    """Copy the repository's files: those in git, and those that could be added. The user's are as in a new clone."""
    listing = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=True,
    )
    for name in filter(None, listing.stdout.split("\0")):
        if (REPOSITORY / name).is_file() and not is_users(name):
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(REPOSITORY / name, root / name)
    shutil.copytree(AS_CLONED, root, dirs_exist_ok=True)


def _clone(root: Path) -> None:
    if WAY == "init":
        _init(root)
    else:
        _copy(_files(), root)
    (root / ".venv").symlink_to(REPOSITORY / ".venv")
    # as `dbt deps` does; relative, so that a copy of the project reads its own packages
    (root / "transform" / "dbt_packages").mkdir()
    for package in PACKAGES:
        (root / "transform" / "dbt_packages" / Path(package).name).symlink_to(Path("..", "..", package))
    (root / ".meltano").mkdir(exist_ok=True)
    for kind in ("extractors", "loaders", "utilities"):
        (root / ".meltano" / kind).symlink_to(REPOSITORY / ".meltano" / kind)


def _files() -> Path:
    """Return a directory with the files of a new clone; the first caller makes it for the whole test run."""
    made = shared() / "clone"
    with made.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not made.exists():
            half = made.with_suffix(".half")
            half.mkdir()
            copy_files(half)
            half.rename(made)
    return made


def _init(root: Path) -> None:
    """Make a project as `tidemark init` does, with the demo. What set-up links is copied, because tests edit it."""
    wheels = root.with_name(f"{root.name}-wheels")
    wheels.mkdir()
    for package in definitions.DISTRIBUTIONS:
        (wheels / definitions.wheel(package, metadata.version("tidemark"))).touch()
    project = new_project.make(root, wheels=wheels)
    shutil.rmtree(wheels)
    # or Meltano would install the plugins again, from there
    for name, text in definitions.lock_files(definitions.from_source).items():
        (root / name).write_text(text)
    ignored = shutil.ignore_patterns("__pycache__")
    for name in contents.LINKED:
        shutil.copytree(REPOSITORY / name, root / name, ignore=ignored)
    demo_files.add(project)
    shutil.copy(AS_CLONED / "transform/package-lock.yml", root / "transform")


def _project_at(stage: Stage, installation: str) -> Path:
    """Return a stopped project at that stage; the first caller makes it for the whole test run."""
    made = shared() / f"{stage}-{installation}"
    with made.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not made.exists():
            stages = list(STAGES)
            before = stages.index(stage) - 1
            for checkout in make_checkout(installation, stage=stages[before] if before >= 0 else None):
                STAGES[stage](checkout)
                checkout.tidemark("down")
                half = made.with_suffix(".half")
                half.mkdir()
                _copy(checkout.root, half)
                for programs_of_servers in half.glob(f".tidemark/postgres/{binaries.COPY}*"):
                    apart = made.with_suffix(".programs") / programs_of_servers.name
                    apart.parent.mkdir()
                    programs_of_servers.rename(apart)
                half.rename(made)
    return made


def _copy(project: Path, root: Path) -> None:
    """Copy all files of a project; its data keeps its owner, which root chose."""
    subprocess.run(["cp", "-a", f"{project}/.", str(root)], check=True)


def _link_programs(project: Path, root: Path) -> None:
    """Give a copy of a project the same files as programs of its servers: no test changes those."""
    if project.with_suffix(".programs").exists():
        target = root / ".tidemark" / "postgres"
        shutil.copytree(project.with_suffix(".programs"), target, copy_function=os.link, dirs_exist_ok=True)


@pytest.fixture
def checkout() -> Iterator[Checkout]:
    yield from make_checkout()


@pytest.fixture
def started() -> Iterator[Checkout]:
    """A project with started servers."""
    yield from make_checkout(stage="up")


@pytest.fixture(params=EACH_POSTGRES)
def checkout_on_each_postgres(request: pytest.FixtureRequest) -> Iterator[Checkout]:
    yield from make_checkout(request.param)


@pytest.fixture
def checkout_on_the_systems_postgres() -> Iterator[Checkout]:
    """A project with the servers of the system's package, if there is one: it must work with those too."""
    yield from make_checkout("system" if "system" in INSTALLATIONS else "embedded", stage="up")


@pytest.fixture
def bare_project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    """The project's files, without variables of this project in the environment."""
    for name in os.environ:
        if name.startswith(("TAP_", "TARGET_", "DBT_", "TIDEMARK_", "MELTANO_", "AIRFLOW_")):
            monkeypatch.delenv(name)
    shutil.copytree(AS_CLONED, tmp_path, dirs_exist_ok=True)
    for path in REPOSITORY.glob("plugins/*/*.lock"):
        copy = tmp_path / path.relative_to(REPOSITORY)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, copy)
    return Project(tmp_path)
