"""Projects for tests, each with its own servers."""

from __future__ import annotations

import os
import shutil
from typing import TYPE_CHECKING

import pytest

from tests.conftest import AS_CLONED, REPOSITORY
from tests.integration.stages import make_checkout
from tests.servers import INSTALLATIONS
from tidemark.project.directory import Project

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.integration.checkout import Checkout

# one is enough for `make test`, as CI runs it on each version
EACH_POSTGRES = [
    pytest.param(name, marks=[] if name == "embedded" else [pytest.mark.long]) for name in sorted(INSTALLATIONS)
]


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
