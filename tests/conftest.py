"""What every test may use: the repository, what the run's workers share, and the header with PostgreSQL's versions."""

from __future__ import annotations

import atexit
import functools
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
# those with the longest files first, so that no worker is left with one when the others have done
_ORDER = ("integration", "chaos", "singer", "airflow", "compose", "project", "unit")
REPOSITORY = Path(__file__).resolve().parent.parent


def pytest_report_header() -> list[str]:
    versions = []
    for name, directory in INSTALLATIONS.items():
        answer = subprocess.run([f"{directory}/postgres", "--version"], capture_output=True, text=True, check=True)
        versions.append(f"{name}: {answer.stdout.strip()}")
    return versions


def memory() -> str | None:
    """Return a directory in memory if there is one with room: most of a test's time is waiting for fsync."""
    shared = Path("/dev/shm")  # noqa: S108
    roomy = shared.is_dir() and os.access(shared, os.W_OK) and shutil.disk_usage(shared).free > 2 * 2**30
    return str(shared) if roomy else None


@functools.cache
def shared() -> Path:
    """Return a directory that all processes of this run share, and that goes with the first of them."""
    if _SHARED not in os.environ:
        os.environ[_SHARED] = tempfile.mkdtemp(prefix="tidemark-tests-", dir=memory())
        atexit.register(shutil.rmtree, os.environ[_SHARED])
        # not closed to the user who runs the servers when root runs the tests
        Path(os.environ[_SHARED]).chmod(0o755)
    return Path(os.environ[_SHARED])


def pytest_configure() -> None:
    # before there are workers, who then know of it
    shared()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: _ORDER.index(item.path.parent.name))
