"""A Docker engine for docker-compose.yml: this machine's, or one that the program COMPOSE_LAB starts."""

from __future__ import annotations

import os
import shlex
import subprocess
from typing import TYPE_CHECKING

import pytest

from tests.compose.stack import Stack
from tests.conftest import REPOSITORY

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="session")
def engine() -> dict[str, str]:
    """Return the variables with which docker and docker compose find their engine."""
    found: dict[str, str] = {}
    if lab := os.environ.get("COMPOSE_LAB"):
        subprocess.run([lab, "up"], check=True, stdout=subprocess.DEVNULL)
        said = subprocess.run([lab, "env"], check=True, capture_output=True, text=True).stdout
        words = shlex.split(said.removeprefix("export "))
        found = {name: os.path.expandvars(value) for name, _, value in (word.partition("=") for word in words)}
    environment = {**os.environ, **found}
    try:
        subprocess.run(["docker", "info"], env=environment, capture_output=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("needs a Docker engine that this user may use, or COMPOSE_LAB, a program that starts one")
    return found


@pytest.fixture(scope="module")
def stack(engine: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """Yield a project that is not up yet; afterwards, remove everything that it started."""
    found = Stack(tmp_path_factory.mktemp("stack"), engine)
    try:
        yield found
    finally:
        # CI keeps these after a failure
        logs = REPOSITORY / "logs"
        logs.mkdir(exist_ok=True)
        (logs / f"{found.name}.log").write_text(found.compose("logs", "--no-color", "--timestamps"))
        found.compose("down", "--volumes", "--timeout", "5")
