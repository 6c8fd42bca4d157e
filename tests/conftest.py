"""What every test may use: the repository, and the header that says which PostgreSQL versions the run is on."""

from __future__ import annotations

import subprocess
from pathlib import Path

from tests.servers import INSTALLATIONS

REPOSITORY = Path(__file__).resolve().parent.parent


def pytest_report_header() -> list[str]:
    versions = []
    for name, directory in INSTALLATIONS.items():
        answer = subprocess.run([f"{directory}/postgres", "--version"], capture_output=True, text=True, check=True)
        versions.append(f"{name}: {answer.stdout.strip()}")
    return versions
