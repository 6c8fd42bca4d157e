"""For all tests: the repository, the directory that workers share, and a header with PostgreSQL's versions."""

from __future__ import annotations

import atexit
import functools
import gc
import os
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from tests.servers import INSTALLATIONS

if TYPE_CHECKING:
    import pytest

_SHARED = "TESTS_SHARED"
# The longest files first, so that no worker still has a long one when the others are done. The first ones begin with
# projects of different stages: they would wait for the same one.
_FIRST = ("test_backfill", "test_pipeline", "test_onboard_whole", "test_second_source", "test_servers")
_ORDER = ("integration", "chaos", "singer", "airflow", "compose", "monitoring", "project", "unit")
REPOSITORY = Path(__file__).resolve().parent.parent
# the user's files as a new clone has them, with the demo shop: tests of the framework read these
AS_CLONED = REPOSITORY / "demo" / "project"


def shop_is_as_cloned() -> bool:
    """Whether this is the framework's own repository: a user's project has its own project_id, or removed the shop."""
    is_ours = "\nproject_id: tidemark\n" in (REPOSITORY / "meltano.yml").read_text()
    return is_ours and "/demo/shop" in (REPOSITORY / "transform" / "packages.yml").read_text().partition("packages:")[2]


def pytest_report_header() -> list[str]:
    versions = []
    for name, directory in INSTALLATIONS.items():
        answer = subprocess.run([f"{directory}/postgres", "--version"], capture_output=True, text=True, check=True)
        versions.append(f"{name}: {answer.stdout.strip()}")
    return versions


def memory() -> str | None:
    """Return a directory in memory if it has room: tests spend most of their time waiting for fsync."""
    shared = Path("/dev/shm")  # noqa: S108
    roomy = shared.is_dir() and os.access(shared, os.W_OK) and shutil.disk_usage(shared).free > 2 * 2**30
    return str(shared) if roomy else None


@functools.cache
def shared() -> Path:
    """Return a directory that all processes of this run share; the first process removes it at its end."""
    if _SHARED not in os.environ:
        os.environ[_SHARED] = tempfile.mkdtemp(prefix="tidemark-tests-", dir=memory())
        atexit.register(shutil.rmtree, os.environ[_SHARED])
        # readable for the servers' user when root runs the tests
        Path(os.environ[_SHARED]).chmod(0o755)
        os.mkfifo(alive())
        # held open until this process ends
        os.open(alive(), os.O_RDWR)
    return Path(os.environ[_SHARED])


def alive() -> Path:
    """Return a pipe that all processes of this run share; it can be read as soon as the first process has ended."""
    return Path(os.environ[_SHARED], "alive")


def pytest_configure() -> None:
    # before the workers start, so that they inherit it
    shared()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    def turn(item: pytest.Item) -> tuple[int, int]:
        name = item.path.stem
        first = _FIRST.index(name) if name in _FIRST and item.path.parent.name == _ORDER[0] else len(_FIRST)
        return _ORDER.index(item.path.parent.name), first

    items.sort(key=turn)
    # what was imported and collected stays: searching it for cycles takes a tenth of a worker's time
    gc.freeze()
