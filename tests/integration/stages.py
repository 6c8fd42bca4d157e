"""Makes a project for a test: as cloned, or at a later stage, which the whole test run reaches only once.

The tests neither read nor change the user's project. Theirs has the repository's files, the installed environments,
other ports and other data.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import tempfile
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from tests import programs
from tests.conftest import AS_CLONED, REPOSITORY, memory, shared
from tests.forks import PACKAGES, look_up_once, parse_yaml_in_c
from tests.integration.checkout import Checkout
from tests.ports import free_ports
from tests.servers import variable
from tidemark.local.postgres import binaries
from tidemark.project import demo_files, new_project
from tidemark.project.user_files import is_users
from tidemark.release import contents, definitions

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

OURS = ("TAP_POSTGRES", "TARGET_POSTGRES", "TIDEMARK_", "MELTANO_", "DBT_", "PG")
SCALE = "0.002"
# how projects begin: as a clone, or by `tidemark init`
WAY = os.environ.get("TESTED_WAY", "clone")
# tests that call functions of tidemark let Meltano look up thousands of settings too
look_up_once()
parse_yaml_in_c()

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
    if stage:
        _copy(_project_at(stage, installation), root)
        _link_programs(_project_at(stage, installation), root)
    else:
        _clone(root)
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
        if stage:
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
